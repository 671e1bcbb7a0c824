// Sends the requests of a plan with one of Node's HTTP clients, and prints the results; arguments, plan and output
// are those of client.py. NODE_EXTRA_CA_CERTS must name the same CA, because `fetch` uses it.
'use strict';

const fs = require('node:fs');
const http2 = require('node:http2');
const https = require('node:https');

const [library, base, caFile, tries] = process.argv.slice(2);
const ca = fs.readFileSync(caFile);
const plan = fs.readFileSync(0, 'utf8').trim().split('\n').map((line) => line.split(' '));
const TIMEOUT = 60_000;

function read(stream, status) {
  return new Promise((resolve, reject) => {
    let text = '';
    stream.setEncoding('utf8');
    stream.on('data', (piece) => { text += piece; });
    stream.on('end', () => resolve([status(), text]));
    stream.on('error', reject);
    stream.on('aborted', () => reject(new Error('aborted')));
  });
}

const agent = new https.Agent({ ca, keepAlive: true });

function withHttps(path, headers, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(base + path, { method: 'POST', headers, agent, timeout: TIMEOUT });
    request.on('timeout', () => request.destroy(new Error('timeout')));
    request.on('error', reject);
    request.on('response', (answer) => read(answer, () => answer.statusCode).then(resolve, reject));
    request.end(body);
  });
}

async function withFetch(path, headers, body) {
  const answer = await fetch(base + path, { method: 'POST', headers, body, signal: AbortSignal.timeout(TIMEOUT) });
  return [answer.status, await answer.text()];
}

let session;

function withHttp2(path, headers, body) {
  return new Promise((resolve, reject) => {
    if (!session || session.closed || session.destroyed) {
      session = http2.connect(base, { ca });
      session.on('error', reject);
    }
    const stream = session.request({ ':method': 'POST', ':path': path, ...headers });
    let status = 0;
    stream.setTimeout(TIMEOUT, () => stream.destroy(new Error('timeout')));
    stream.on('response', (fields) => { status = fields[':status']; });
    const answer = read(stream, () => status);
    // A body that is still being sent counts towards the memory limit of the session, 10 MB.
    stream.on('close', () => answer.then(resolve, reject));
    answer.catch(reject);
    stream.end(body);
  });
}

async function main() {
  const send = { https: withHttps, fetch: withFetch, http2: withHttp2 }[library];
  for (const [path, key, size] of plan) {
    const headers = { 'x-api-key': key, 'content-type': 'application/json' };
    for (let count = 0; count < Number(tries); count += 1) {
      try {
        const [status, text] = await send(path, headers, Buffer.alloc(Number(size), 'x'));
        console.log(`${status} ${JSON.parse(text).status}`);
      } catch (error) {
        console.log(`- ${error} ${error.cause ?? ''}`.replaceAll('\n', ' '));
      }
    }
  }
  agent.destroy();
  session?.destroy();
}

main();
