// What Restate's client for TypeScript, as it comes, sees of a server: a line of JSON for each
// call, [name, what it gave]. Arguments: the URL, and the URL of one that is not ready at first.
import * as restate from "@restatedev/restate-sdk-clients";

type Context = unknown;

interface Item {
  name: string;
  price: number;
  due?: string | null;
}

type Greeter = {
  greet(ctx: Context, name: string): Promise<string>;
  void(ctx: Context, name: string): Promise<void>;
  noargs(ctx: Context): Promise<string>;
  price(ctx: Context, item: Item): Promise<Item>;
  fail(ctx: Context, code: number): Promise<void>;
  headers(ctx: Context): Promise<Record<string, string>>;
  raw(ctx: Context, content: Uint8Array): Promise<Uint8Array>;
  nap(ctx: Context, seconds: number): Promise<string>;
};

type Counter = {
  add(ctx: Context, amount: number): Promise<number>;
  total(ctx: Context): Promise<number>;
};

type Signup = {
  run(ctx: Context, name: string): Promise<string>;
  approve(ctx: Context, answer: string): Promise<string>;
  refuse(ctx: Context, reason: string): Promise<void>;
  peek(ctx: Context): Promise<string | null>;
};

type Waiter = {
  wait(ctx: Context): Promise<string>;
  waiting(ctx: Context): Promise<string[]>;
};

const Greeter = { name: "Greeter" } as restate.ServiceDefinition<"Greeter", Greeter>;
const Counter = { name: "Counter" } as restate.VirtualObjectDefinition<"Counter", Counter>;
const Signup = { name: "Signup" } as restate.WorkflowDefinition<"Signup", Signup>;
const Waiter = { name: "Waiter" } as restate.ServiceDefinition<"Waiter", Waiter>;
const { opts, sendOpts } = restate.rpc;

const [url, late] = process.argv.slice(2);
const client = restate.connect({ url });

async function note(name: string, asked: PromiseLike<unknown>): Promise<void> {
  let gave: unknown;
  try {
    gave = (await asked) ?? null;
  } catch (error) {
    if (!(error instanceof restate.HttpCallError)) throw error;
    gave = { status: error.status, ...JSON.parse(error.responseText) };
  }
  console.log(JSON.stringify([name, gave]));
}

async function services(): Promise<void> {
  const greeter = client.serviceClient(Greeter);
  await note("service", greeter.greet("Bob"));
  await note("no result", greeter.void("x", opts({ output: restate.serde.empty })));
  await note("no argument", greeter.noargs(opts({ input: restate.serde.empty })));
  await note("record", greeter.price({ name: "tea", price: 1.5, due: null }));
  await note("terminal error", greeter.fail(418));
  await note("error without code", greeter.fail(0));
  const mine = opts<void, Record<string, string>>({
    headers: { "x-mine": "1" },
    input: restate.serde.empty,
  });
  await note("header", greeter.headers(mine).then((handed) => handed["x-mine"]));
  const binary = { input: restate.serde.binary, output: restate.serde.binary };
  const reversed = greeter.raw(new Uint8Array([97, 98, 99]), opts(binary));
  await note("bytes", reversed.then((bytes) => [...bytes]));
  const tired = greeter.nap(60, opts({ timeout: 100 })).then(null, (error: Error) => error.name);
  await note("timeout", tired);
  await note("call", client.call<string, string>({ service: "Greeter", handler: "greet", parameter: "Al" }));
  await note("nobody", client.call({ service: "Nope", handler: "greet", parameter: "x" }));
  await note("no handler", client.call({ service: "Greeter", handler: "nope", parameter: "x" }));
}

async function objects(): Promise<void> {
  const counter = client.objectClient(Counter, "a/b c");
  await note("object", counter.add(5));
  await note("idempotent 1", counter.add(1, opts({ idempotencyKey: "i" })));
  await note("idempotent 2", counter.add(2, opts({ idempotencyKey: "i" })));
  await note("shared", counter.total(opts({ input: restate.serde.empty })));

  const sender = client.objectSendClient(Counter, "a/b c");
  const first = await sender.add(10, sendOpts({ idempotencyKey: "j" }));
  const again = await sender.add(10, sendOpts({ idempotencyKey: "j" }));
  await note("sent", Promise.resolve([first.status, first.attachable]));
  await note("sent again", Promise.resolve([again.status, first.invocationId === again.invocationId]));
  await note("result", client.result(again));

  const delayed = await client
    .serviceSendClient(Greeter)
    .greet("late", sendOpts({ delay: 50, idempotencyKey: "late" }));
  await note("delayed", client.result(delayed));
  const duration = sendOpts<string>({ delay: { hours: 1, seconds: 1 } });
  const scheduled = await client.serviceSendClient(Greeter).greet("later", duration);
  await note("scheduled", Promise.resolve([scheduled.status, scheduled.attachable]));
  const sent = await client.send({
    service: "Counter",
    key: "generic",
    handler: "add",
    parameter: 3,
    opts: sendOpts({ idempotencyKey: "k" }),
  });
  await note("send", client.result(sent));
}

async function workflows(): Promise<void> {
  const signup = client.workflowClient(Signup, "w");
  await note("never started", signup.workflowAttach());
  await note("output of never started", signup.workflowOutput());
  await note("peek", signup.peek(opts({ input: restate.serde.empty, output: maybe })));
  const first = await signup.workflowSubmit("A");
  const again = await signup.workflowSubmit("B");
  await note("submitted", Promise.resolve([first.status, first.attachable]));
  await note("submitted again", Promise.resolve([again.status, first.invocationId === again.invocationId]));
  await note("not ready", signup.workflowOutput().then((output) => output.ready));
  const attached = signup.workflowAttach();
  await note("approve", signup.approve("yes"));
  await note("approved twice", signup.approve("no"));
  await note("attached", attached);
  await note("attached by submission", client.result(first));
  await note("ready", signup.workflowOutput().then((output) => [output.ready, output.result]));

  const refused = client.workflowClient(Signup, "refused");
  await refused.workflowSubmit("A");
  await refused.refuse("no way", opts({ output: restate.serde.empty }));
  await note("refused", refused.workflowAttach());
}

// restate-sdk of Python answers None with nothing, perdure with null.
const maybe: restate.Serde<string | null> = {
  contentType: "application/json",
  serialize: (value) => restate.serde.json.serialize(value),
  deserialize: (bytes) => (bytes.length === 0 ? null : (restate.serde.json.deserialize(bytes) as string | null)),
};

async function awakeables(): Promise<void> {
  const waiter = client.serviceClient(Waiter);
  const nothing = { input: restate.serde.empty };
  const known = async (count: number): Promise<string> => {
    for (;;) {
      const ids = await waiter.waiting(opts<void, string[]>(nothing));
      if (ids.length === count) return ids[count - 1];
    }
  };
  const before = (await waiter.waiting(opts<void, string[]>(nothing))).length;
  const resolved = waiter.wait(opts<void, string>(nothing));
  const id = await known(before + 1);
  await client.resolveAwakeable(id, "hello");
  await note("resolved", resolved);
  await note("resolved twice", client.resolveAwakeable(id, "again"));
  const rejected = waiter.wait(opts<void, string>(nothing));
  await client.rejectAwakeable(await known(before + 2), "very bad");
  await note("rejected", rejected);
  await note("no awakeable", client.resolveAwakeable("foo", 1));
}

// Two are refused at first and told when to come again, long before the client would by itself;
// the third fails for good, whatever its status.
async function retries(): Promise<void> {
  let attempts = 0;
  const counted: typeof fetch = (...request) => {
    attempts += 1;
    return fetch(...request);
  };
  const patient = (to: string, initialInterval: number) => {
    const retry = { initialInterval, maxInterval: initialInterval, maxDuration: 30_000 };
    return restate.connect({ url: to, retry, fetch: counted }).serviceClient(Greeter);
  };
  for (const name of ["closed", "busy"]) {
    const greeted = patient(`${late}/${name}`, 60_000).greet("Bob", opts({ idempotencyKey: "r" }));
    await note(`${name}, with patience`, greeted);
  }
  await note("attempts at both", Promise.resolve(attempts));
  attempts = 0;
  await note("failed for good", patient(url, 1).fail(503, opts({ idempotencyKey: "r" })));
  await note("attempts at that", Promise.resolve(attempts));
}

await services();
await objects();
await workflows();
await awakeables();
if (late !== undefined) await retries();
