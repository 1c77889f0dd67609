// One node of a three-node bank. After `npm run build` (`npm start` has done it), in three shells:
//   npx tsx examples/bank/main.ts 1     (then 2, within half a minute, then 3)
import { Raft } from 'keelson';
import { Bank } from './bank.js';

const nodeId = Number(process.argv[2]);
const directory = process.env.BANK_DIRECTORY ?? './data';
const ports = (process.env.BANK_PORTS ?? '7001,7002,7003').split(',');

await using bank = await Raft.open({
  nodeId,
  clusterName: 'bank',
  dataDir: `${directory}/bank-${nodeId}`,
  listen: `127.0.0.1:${ports[nodeId - 1]}`,
  bootstrap: {
    voters: {
      1: `127.0.0.1:${ports[0]}`,
      2: `127.0.0.1:${ports[1]}`,
      3: `127.0.0.1:${ports[2]}`,
    },
  },
  stateMachine: new Bank(), // in a worker: the URL of a compiled module
});

console.log(`node ${nodeId}: waiting for a majority`);
// Writes go to whoever leads, from any node; the answer comes when a quorum has it on disk.
await bank.write({ op: 'deposit', to: 'ann', amount: 5 }, { timeoutMs: 30_000 });
const { response, logId } = await bank.write(
  { op: 'move', from: 'ann', to: 'bob', amount: 5 },
  { signal: AbortSignal.timeout(2_000) },
);
console.log(`node ${nodeId}: moved at index ${logId.index}:`, response);
console.log('bob has', await bank.read({ balance: 'bob' }, { consistency: { atLeast: logId } }));

// Serve until asked to stop.
await new Promise((resolve) => process.once('SIGTERM', resolve).once('SIGINT', resolve));
