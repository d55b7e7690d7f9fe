// A function that behaves as its event says; see the folder's README.

console.log("node: cold");
if (process.env.INIT === "exit") process.exit(7);
if (process.env.INIT === "raise") throw new TypeError("no init");
if (process.env.INIT === "sleep") await new Promise((resolve) => setTimeout(resolve, 3600000));

let count = 0;

export const handler = async (event, context) => {
  count += 1;
  console.log(`node: ${context.awsRequestId} ${event.do}`);
  if (event.do === "fail") throw new TypeError("as you wish");
  if (event.do === "exit") process.exit(3);
  if (event.do === "sleep") await new Promise((resolve) => setTimeout(resolve, 3600000));
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
