// A function that behaves as its event says; see the folder's README.

import crypto from "node:crypto";
import fs from "node:fs";

console.log("node: cold");
if (process.env.INIT === "exit") process.exit(7);
if (process.env.INIT === "raise") throw new TypeError("no init");
if (process.env.INIT === "sleep") await new Promise((resolve) => setTimeout(resolve, 3600000));

const { RESTORE } = process.env;
if (RESTORE) {
  const hook = (when, fails) => async () => {
    await null;
    if (RESTORE === fails) throw new TypeError(`no ${fails}`);
    process.stdout.write(`node: ${when}\n`);
  };
  process.on("beforeSnapshot", hook("before snapshot, first", "before-fails"));
  process.on("beforeSnapshot", hook("before snapshot, second"));
  process.on("afterRestore", hook("after restore, first"));
  process.on("afterRestore", hook("after restore, second", "after-fails"));
}

// What generators give that have drawn ahead; the engine's own can be seeded by nobody.
const draw = () => ({
  own: Math.random(),
  uuid: crypto.randomUUID(),
  integer: crypto.randomInt(2 ** 47),
  openssl: crypto.randomBytes(16).toString("hex"),
});
if (process.env.DRAWS) draw();

let count = 0;

// Writes to /tmp until it is full; how much that was, and why it ended. Then removes it.
const fill = () => {
  const file = fs.openSync("/tmp/fill", "w");
  const chunk = Buffer.alloc(65536, 120);
  let bytes = 0;
  try {
    for (;;) bytes += fs.writeSync(file, chunk);
  } catch (error) {
    return { bytes, why: error.code === "ENOSPC" ? "No space left on device" : error.code };
  } finally {
    fs.closeSync(file);
    fs.unlinkSync("/tmp/fill");
  }
};

// Leaves a value in /tmp; gives what was there.
const keep = (value) => {
  const before = fs.existsSync("/tmp/kept") ? fs.readFileSync("/tmp/kept", "utf8") : "";
  fs.writeFileSync("/tmp/kept", String(value));
  return before;
};

export const handler = async (event, context) => {
  count += 1;
  console.log(`node: ${context.awsRequestId} ${event.do}`);
  if (event.do === "fail") throw new TypeError("as you wish");
  if (event.do === "exit") process.exit(3);
  if (event.do === "sleep") await new Promise((resolve) => setTimeout(resolve, 3600000));
  if (event.do === "fill") return fill();
  if (event.do === "keep") return keep(event.value);
  if (event.do === "draw") {
    await new Promise((resolve) => setTimeout(resolve, 1000 * (event.for ?? 0)));
    return draw();
  }
  if (event.do === "large") return "x".repeat(event.bytes);
  return {
    echo: event.value,
    count,
    id: context.awsRequestId,
    trace: process.env._X_AMZN_TRACE_ID,
    arn: context.invokedFunctionArn,
    function: context.functionName,
    memory: Number(context.memoryLimitInMB),
  };
};
