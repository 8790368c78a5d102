// Node `openai`, chat completions. Its own runner drives the tool.
import OpenAI from "openai";
import { fetch, main, order, shellText } from "./common.mjs";

const client = new OpenAI({
  baseURL: order.base_url,
  apiKey: order.api_key,
  maxRetries: order.retries,
  timeout: order.timeout_s * 1000,
  fetch,
});
const first = [
  { role: "system", content: order.system },
  { role: "user", content: order.questions[0] },
];
const bare = { model: order.model, messages: first, stream: order.stream };
const usage = order.stream ? { stream_options: { include_usage: true } } : {};
const tool = { name: "shell", description: order.tool.description, parameters: order.tool.parameters };

async function converse() {
  const turns = [];
  let messages = first;
  for (const question of order.questions) {
    if (messages !== first) messages = [...messages, { role: "user", content: question }];
    const run = { ...tool, function: ({ cmd }) => shellText(cmd), parse: JSON.parse };
    const runner = client.chat.completions.runTools({ ...bare, ...usage, messages, tools: [{ type: "function", function: run }] });
    await runner.done();
    for (const completion of runner.allChatCompletions()) {
      const { message, finish_reason } = completion.choices[0];
      turns.push({
        text: message.content ?? "",
        reasoning: message.reasoning_content ?? "",
        calls: (message.tool_calls ?? []).map((call) => JSON.parse(call.function.arguments).cmd),
        finish: finish_reason,
        tokens: completion.usage.completion_tokens,
      });
    }
    messages = runner.messages;
  }
  return { turns };
}

const ask = (more = {}, options = {}) => client.chat.completions.create({ ...bare, ...more }, options);

async function read(reply) {
  if (!order.stream) return reply.choices[0].message.content;
  let text = "";
  for await (const chunk of reply) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

async function abandon() {
  let text = "";
  if (order.stream) {
    const reply = await ask();
    for await (const chunk of reply) {
      text += chunk.choices[0]?.delta.content ?? "";
      if (text) break; // which aborts the request
    }
  } else {
    await ask({}, { signal: AbortSignal.timeout(order.abort_s * 1000) }).catch((error) => (text = error.constructor.name));
  }
  return { abandoned: text, text: await read(await ask()) };
}

await main({
  converse,
  abandon,
  ask: async () => ({ text: await read(await ask()) }),
  force: async () => ({ text: await read(await ask({ tools: [{ type: "function", function: tool }], tool_choice: "required" })) }),
});
