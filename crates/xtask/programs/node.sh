cat >workload.js <<'JS'
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const crypto = require('node:crypto');
const zlib = require('node:zlib');

const digest = (text) => crypto.createHash('sha256').update(text).digest('hex').slice(0, 16);
const random = (seed) => () => (seed = (seed * 16807) % 2147483647);

function churn(seed) {
  const next = random(seed);
  const tree = (depth) =>
    depth === 0 ? next() % 1000
      : next() % 2 ? Array.from({ length: next() % 6 }, () => tree(depth - 1))
      : Object.fromEntries(Array.from({ length: next() % 6 }, () => ['k' + (next() % 500), tree(depth - 1)]));
  const text = JSON.stringify(Array.from({ length: 200 }, () => tree(6)));
  const back = JSON.stringify(JSON.parse(text));
  const map = new Map();
  for (let i = 0; i < 100000; i++) map.set('key' + (next() % 20000), { i, s: 'x'.repeat(next() % 30) });
  const buffers = Array.from({ length: 500 }, () => Buffer.alloc(next() % 65536, next() % 256));
  const packed = zlib.gzipSync(Buffer.concat(buffers));
  return [digest(text), text === back, map.size, digest(zlib.gunzipSync(packed))].join(' ');
}

if (isMainThread) {
  console.log('main', churn(1));
  const runs = [2, 3, 4, 5].map((seed) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: seed });
    worker.on('message', resolve);
    worker.on('error', reject);
  }));
  const streams = [1, 2, 3, 4].map((n) => new Promise((resolve, reject) =>
    zlib.brotliCompress(Buffer.alloc(300000, 'node' + n), (error, out) =>
      error ? reject(error) : resolve(out.length))));
  Promise.all([...runs, ...streams]).then((all) => all.forEach((line) => console.log(line)));
} else {
  parentPort.postMessage('worker ' + workerData + ' ' + churn(workerData));
}
JS
node workload.js
