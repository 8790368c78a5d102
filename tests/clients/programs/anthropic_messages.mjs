// `@anthropic-ai/sdk`. Its own runner drives the tool, and tells the policy of a failure (`is_error`).
import Anthropic from "@anthropic-ai/sdk";
import { fetch, main, order, shell } from "./common.mjs";

const client = new Anthropic({
  baseURL: order.base_url.replace(/\/v1$/, ""),
  apiKey: order.api_key,
  maxRetries: order.retries,
  timeout: order.timeout_s * 1000,
  fetch,
});
const first = [{ role: "user", content: order.questions[0] }];
const bare = { model: order.model, max_tokens: 1000, system: order.system, messages: first };
const tool = { name: "shell", description: order.tool.description, input_schema: order.tool.parameters };

function turnOf(message) {
  const of = (type, key) => message.content.filter((block) => block.type === type).map((block) => block[key]);
  return {
    text: of("text", "text").join(""),
    reasoning: of("thinking", "thinking").join(""),
    calls: of("tool_use", "input").map((input) => input.cmd),
    finish: message.stop_reason,
    tokens: message.usage.output_tokens,
  };
}

async function converse() {
  const turns = [];
  let messages = [];
  for (const question of order.questions) {
    messages = [...messages, { role: "user", content: question }];
    const tools = [{ ...tool, run: ({ cmd }) => shell(cmd), parse: (input) => input }];
    const runner = client.beta.messages.toolRunner({ ...bare, messages, tools, stream: order.stream });
    for await (const reply of runner) turns.push(turnOf(order.stream ? await reply.finalMessage() : reply));
    messages = runner.params.messages;
    const last = await runner.done();
    if (messages.at(-1).role !== "assistant") messages = [...messages, { role: "assistant", content: last.content }];
  }
  return { turns };
}

async function ask(more = {}) {
  const body = { ...bare, ...more };
  return turnOf(order.stream ? await client.messages.stream(body).finalMessage() : await client.messages.create(body)).text;
}

async function abandon() {
  let text = "";
  if (order.stream) {
    for await (const event of client.messages.stream(bare)) {
      text += event.delta?.text ?? "";
      if (text) break; // which aborts the request
    }
  } else {
    const signal = AbortSignal.timeout(order.abort_s * 1000);
    await client.messages.create(bare, { signal }).catch((error) => (text = error.constructor.name));
  }
  return { abandoned: text, text: await ask() };
}

await main({
  converse,
  abandon,
  ask: async () => ({ text: await ask() }),
  force: async () => ({ text: await ask({ tools: [tool], tool_choice: { type: "any" } }) }),
});
