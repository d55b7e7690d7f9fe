// Loaded before aws-lambda-ric, which knows nothing of snapshots: waits to be restored before its first event, and seeds anew what was
// seeded before, ahead of any hook of the function's.
//
// A function's hooks are listeners, each waited for: process.on("beforeSnapshot", hook), process.on("afterRestore", hook).

"use strict";
const crypto = require("node:crypto");
const http = require("node:http");

// As Node.js has them: so many UUIDs and integers are drawn ahead.
const UUIDS_AHEAD = 128;
const INTEGERS_AHEAD = 1024;

const renew = () => {
  require("./node_modules/aws-lambda-ric/dist/renew.node")();
  for (let i = 0; i < UUIDS_AHEAD; i += 1) crypto.randomUUID();
  for (let i = 0; i < INTEGERS_AHEAD; i += 1) crypto.randomInt(2);
};

const api = (method, path, headers, body) =>
  new Promise((resolve, reject) => {
    const url = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/${path}`;
    const request = http.request(url, { method, headers, agent: false }, (answer) => {
      answer.resume().on("end", () => {
        if (answer.statusCode < 300) resolve();
        else reject(new Error(`${path} was answered with ${answer.statusCode}`));
      });
    });
    request.on("error", reject).end(body);
  });

// Runs the hooks, one after the other; if one fails, the host is told by that kind of error and the process ends.
const run = async (hooks, path, type) => {
  try {
    for (const hook of hooks) await hook();
  } catch (error) {
    const told = { errorType: error?.name ?? "Error", errorMessage: String(error?.message ?? error), stackTrace: [] };
    const headers = { "Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": type };
    await api("POST", path, headers, JSON.stringify(told)).catch(() => {});
    process.exit(64);
  }
};

const restored = async () => {
  const wait = () => api("GET", "restore/next");
  await run([...process.listeners("beforeSnapshot").reverse(), wait], "init/error", "Runtime.BeforeSnapshotError");
  await run([renew, ...process.listeners("afterRestore")], "restore/error", "Runtime.AfterRestoreError");
};

if (process.env.AWS_LAMBDA_INITIALIZATION_TYPE === "snap-start") {
  const client = require("./node_modules/aws-lambda-ric/dist/rapid-client.node");
  const { next } = client;
  client.next = async () => {
    client.next = next;
    await restored();
    return next.call(client);
  };
}

module.exports = { renew };
