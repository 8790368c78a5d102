// Node `openai`, responses: every request brings the whole input, with the output items as they came.
import OpenAI from "openai";
import { fetch, main, order, shellText } from "./common.mjs";

const client = new OpenAI({
  baseURL: order.base_url,
  apiKey: order.api_key,
  maxRetries: order.retries,
  timeout: order.timeout_s * 1000,
  fetch,
});
const tools = [{ type: "function", name: "shell", strict: false, ...order.tool }];
const bare = { model: order.model, instructions: order.system, input: order.questions[0] };

async function respond(more) {
  if (!order.stream) return client.responses.create({ ...bare, ...more });
  const response = await client.responses.stream({ ...bare, ...more }).finalResponse();
  if (response.status === "failed") throw new Error(response.error.message); // the library returns it as an answer
  return response;
}

function turnOf(response) {
  const of = (type) => response.output.filter((item) => item.type === type);
  return {
    text: response.output_text,
    reasoning: of("reasoning").flatMap((item) => item.content.map((part) => part.text)).join(""),
    calls: of("function_call").map((item) => JSON.parse(item.arguments).cmd),
    finish: response.status,
    tokens: response.usage.output_tokens,
  };
}

async function converse() {
  const turns = [];
  const input = [];
  for (const question of order.questions) {
    input.push({ role: "user", content: question });
    for (;;) {
      const response = await respond({ input, tools });
      turns.push(turnOf(response));
      input.push(...response.output);
      const calls = response.output.filter((item) => item.type === "function_call");
      if (!calls.length) break;
      for (const { call_id, arguments: text } of calls.reverse()) {
        input.push({ type: "function_call_output", call_id, output: shellText(JSON.parse(text).cmd) });
      }
    }
  }
  return { turns };
}

async function abandon() {
  let text = "";
  if (order.stream) {
    for await (const event of await client.responses.create({ ...bare, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (text) break; // which aborts the request
    }
  } else {
    const signal = AbortSignal.timeout(order.abort_s * 1000);
    await client.responses.create(bare, { signal }).catch((error) => (text = error.constructor.name));
  }
  return { abandoned: text, text: (await respond({})).output_text };
}

await main({
  converse,
  abandon,
  ask: async () => ({ text: (await respond({})).output_text }),
  force: async () => ({ text: (await respond({ tools, tool_choice: "required" })).output_text }),
});
