// What OpenAI's JavaScript client and Agents SDK get from the server whose base URL, key and model are given.
// Prints one JSON object; the test beside this file knows what nano must have said.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [base, key, model, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load('openai');
const { zodResponseFormat, zodTextFormat } = await load('openai/helpers/zod');
const { z } = await load('zod');
const agents = await load('@openai/agents');

const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0, timeout: 240_000 });
const Person = z.object({ name: z.string(), age: z.number().int(), city: z.string() });
const sentence = 'Maria Lopez is 34 years old and lives in Berlin.';
const request = 'Call get_weather with city Paris and days 3.';
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const weather = { name: 'get_weather', description: 'Look up the weather.', parameters };
const sampled = { model, temperature: 0 };

async function responses() {
  const created = await client.responses.create({ ...sampled, input: 'Hello' });
  let streamed = '';
  const stream = client.responses.stream({ ...sampled, input: 'Hello' });
  stream.on('response.output_text.delta', (event) => { streamed += event.delta; });
  const final = await stream.finalResponse();
  const parsed = await client.responses.parse({
    ...sampled, input: sentence, text: { format: zodTextFormat(Person, 'person') },
  });
  return { created: created.output_text, streamed, final: final.output_text, parsed: parsed.output_parsed };
}

async function responsesTools() {
  const tools = [{ type: 'function', ...weather, strict: true }];
  const first = await client.responses.create({ ...sampled, input: request, tools });
  const call = first.output.at(-1);
  const output = { type: 'function_call_output', call_id: call.call_id, output: 'sunny' };
  const second = await client.responses.create({
    ...sampled, tools, previous_response_id: first.id, input: [output],
  });
  return { name: call.name, arguments: JSON.parse(call.arguments), answer: second.output_text };
}

async function background() {
  let response = await client.responses.create({ ...sampled, input: 'Hello', background: true });
  const begun = response.status;
  while (['queued', 'in_progress'].includes(response.status)) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    response = await client.responses.retrieve(response.id);
  }
  await client.responses.delete(response.id);
  const gone = await client.responses.retrieve(response.id).catch((error) => error.status);
  return { begun, answer: response.output_text, gone };
}

async function chat() {
  const messages = [{ role: 'user', content: 'Hello' }];
  const created = await client.chat.completions.create({ ...sampled, messages });
  let streamed = '';
  for await (const chunk of await client.chat.completions.create({ ...sampled, messages, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? '';
  }
  const parsed = await client.chat.completions.parse({
    ...sampled,
    messages: [{ role: 'user', content: sentence }],
    response_format: zodResponseFormat(Person, 'person'),
  });
  const { content, reasoning } = created.choices[0].message;
  return { created: content, reasoning, streamed, parsed: parsed.choices[0].message.parsed };
}

async function chatTools() {
  const asked = [];
  const get_weather = (given) => { asked.push(given); return 'sunny'; };
  const runner = client.chat.completions.runTools({
    ...sampled,
    messages: [{ role: 'user', content: request }],
    tools: [{ type: 'function', function: { ...weather, function: get_weather, parse: JSON.parse } }],
  });
  return { answer: await runner.finalContent(), asked };
}

async function rest() {
  const prompt = '<|start|>user<|message|>Hello<|end|><|start|>assistant<|channel|>final<|message|>';
  const completion = await client.completions.create({ ...sampled, prompt, max_tokens: 20 });
  const models = (await client.models.list()).data.map((entry) => entry.id);
  const unknown = await client.responses.create({ model: 'gpt-9', input: 'Hello' }).catch((error) => error.code);
  return { completion: completion.choices[0].text, models, unknown };
}

async function agent(api) {
  agents.setTracingDisabled(true);
  const asked = [];
  const tool = agents.tool({
    name: weather.name,
    description: weather.description,
    parameters: z.object({ city: z.string(), days: z.number().int() }),
    execute: async (given) => { asked.push(given); return 'sunny'; },
  });
  const kinds = { responses: agents.OpenAIResponsesModel, chat: agents.OpenAIChatCompletionsModel };
  const helper = new agents.Agent({
    name: 'helper', tools: [tool], model: new kinds[api](client, model), modelSettings: { temperature: 0 },
  });
  const result = await agents.run(helper, request);
  return { answer: result.finalOutput, asked };
}

console.log(JSON.stringify({
  responses: await responses(),
  responsesTools: await responsesTools(),
  background: await background(),
  chat: await chat(),
  chatTools: await chatTools(),
  rest: await rest(),
  agentResponses: await agent('responses'),
  agentChat: await agent('chat'),
}));
