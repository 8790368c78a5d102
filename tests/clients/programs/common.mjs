// What the Node clients share: the order they get (argv), the tool, and the one line of JSON that they print.

export const order = JSON.parse(process.argv[2]); // `Order` in ../test_clients.py

let sent = 0;
/** Counts the HTTP requests, retries of the library included. */
export const fetch = (...args) => {
  sent += 1;
  return globalThis.fetch(...args);
};

/** The tool: it fails where the policy asks for a file that is not there. */
export function shell(cmd) {
  if (cmd.includes("missing")) throw new Error(`${cmd}: no such file`);
  return `ran ${cmd}`;
}

/** For libraries that leave it to the program what the policy hears of a failure. */
export function shellText(cmd) {
  try {
    return shell(cmd);
  } catch (error) {
    return `error: ${error.message}`;
  }
}

/** Does what was ordered, and prints what came of it. */
export async function main(acts) {
  let said;
  try {
    said = await acts[order.act]();
  } catch (error) {
    const last = error.lastError ?? error; // the AI SDK wraps the last of its tries
    said = { error: last.message, kind: last.constructor.name, status: last.status ?? last.statusCode ?? null };
  }
  process.stdout.write(JSON.stringify({ ...said, sent }) + "\n", () => process.exit(0));
}
