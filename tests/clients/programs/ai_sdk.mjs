// The AI SDK with three providers: `openai` (its default: responses), `compatible` (chat completions), `anthropic`.
// Its own loop drives the tool, and tells the policy of a failure.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import { fetch, main, order, shell } from "./common.mjs";

const settings = { baseURL: order.base_url, apiKey: order.api_key, fetch };
const model = {
  openai: () => createOpenAI(settings)(order.model),
  compatible: () => createOpenAICompatible({ name: "crrl", includeUsage: true, ...settings })(order.model),
  anthropic: () => createAnthropic(settings)(order.model),
}[order.provider]();
const description = order.tool.description;
const inputSchema = z.object({ cmd: z.string() });
const tools = { shell: tool({ description, inputSchema, execute: ({ cmd }) => shell(cmd) }) };
const bare = { model, instructions: order.system, prompt: order.questions[0], maxRetries: order.retries };

/** The steps of one call, streamed or not. Throws what the stream reports. */
async function run(body) {
  if (!order.stream) return generateText({ ...bare, ...body });
  let failed;
  const result = streamText({ ...bare, ...body, onError: ({ error }) => (failed = error) });
  await result.consumeStream({ onError: (error) => (failed ??= error) });
  if (failed) throw failed;
  return { steps: await result.steps, responseMessages: await result.responseMessages, text: await result.text };
}

async function converse() {
  const turns = [];
  let messages = [];
  for (const question of order.questions) {
    messages = [...messages, { role: "user", content: question }];
    const done = await run({ messages, prompt: undefined, tools, stopWhen: isStepCount(9) });
    for (const step of done.steps) {
      turns.push({
        text: step.text,
        reasoning: step.reasoningText ?? "",
        calls: step.toolCalls.map((call) => call.input.cmd),
        finish: step.finishReason,
        tokens: step.usage.outputTokens,
      });
    }
    messages = [...messages, ...done.responseMessages];
  }
  return { turns };
}

async function abandon() {
  let text = "";
  if (order.stream) {
    const stop = new AbortController();
    for await (const delta of streamText({ ...bare, abortSignal: stop.signal, onError: () => {} }).textStream) {
      text += delta;
      if (text) stop.abort();
    }
  } else {
    const abortSignal = AbortSignal.timeout(order.abort_s * 1000);
    await generateText({ ...bare, abortSignal }).catch((error) => (text = error.name));
  }
  return { abandoned: text, text: (await run({})).text };
}

await main({
  converse,
  abandon,
  ask: async () => ({ text: (await run({})).text }),
  force: async () => ({ text: (await run({ tools, toolChoice: "required" })).text }),
});
