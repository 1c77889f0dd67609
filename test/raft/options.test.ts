import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KeyValueMachine, Raft, type RaftOptions } from '../../dist/index.js';
import { refusal } from './support.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'keelson-options-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function options(changes: object = {}): RaftOptions<KeyValueMachine> {
  return {
    nodeId: 1,
    clusterName: 'options',
    dataDir: join(root, 'data'),
    listen: '127.0.0.1:0',
    bootstrap: { voters: { 1: '127.0.0.1:7001' } },
    stateMachine: new KeyValueMachine(),
    ...changes,
  };
}

/** Refusals of what an untyped program may pass. */
async function violations(changes: object): Promise<{ field: string; message: string }[]> {
  const error = await refusal(Raft.open(options(changes)));
  expect(error).toMatchObject({ code: 'KEELSON_INVALID_CONFIG', outcome: 'rejected' });
  const found = error.details.violations as { field: string; message: string }[];
  for (const { field, message } of found) expect(error.message).toContain(`${field} ${message}`);
  expect(existsSync(join(root, 'data')), 'nothing is made').toBe(false);
  return found;
}

const voters = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [i + 1, `127.0.0.1:${7001 + i}`]));
const machine = (changes: object) => Object.assign(new KeyValueMachine(), changes);

describe('Raft.open', () => {
  it.each([
    ['a node id of 0', { nodeId: 0 }, 'nodeId', 'not 0'],
    ['a node id that is text', { nodeId: '1' }, 'nodeId', 'whole number'],
    ['no cluster name', { clusterName: '' }, 'clusterName', '1 to 255'],
    ['a cluster name of 256 characters', { clusterName: 'x'.repeat(256) }, 'clusterName', '255'],
    ['no data directory', { dataDir: '' }, 'dataDir', 'directory'],
    ['a data directory with a zero in it', { dataDir: 'a\0b' }, 'dataDir', 'directory'],
    ['an address without a port', { listen: '127.0.0.1' }, 'listen', 'host:port'],
    ['a port above 65535', { listen: '127.0.0.1:65536' }, 'listen', '65536'],
    ['an IPv6 address without brackets', { listen: '::1:7000' }, 'listen', '::1:7000'],
    ['a bad advertised address', { advertise: 'bank 1:7000' }, 'advertise', 'bank 1:7000'],
    ['no bootstrap', { bootstrap: undefined }, 'bootstrap.voters', 'must map'],
    ['no voter', { bootstrap: { voters: {} } }, 'bootstrap.voters', 'not 0'],
    ['eight voters', { bootstrap: { voters: voters(8) } }, 'bootstrap.voters', 'not 8'],
    [
      'voters without itself',
      { nodeId: 4, bootstrap: { voters: voters(3) } },
      'bootstrap.voters',
      'must name node 4',
    ],
    [
      'a voter with a name',
      { bootstrap: { voters: { ...voters(1), ann: '127.0.0.1:1' } } },
      'bootstrap.voters.ann',
      'node id',
    ],
    [
      'one voter twice',
      { bootstrap: { voters: { ...voters(1), '01': '127.0.0.1:1' } } },
      'bootstrap.voters.01',
      'node id',
    ],
    [
      'a voter at a bad address',
      { bootstrap: { voters: { 1: 'bank-1' } } },
      'bootstrap.voters.1',
      'bank-1',
    ],
    ['no state machine', { stateMachine: undefined }, 'stateMachine', 'apply and query'],
    ['the path of a module', { stateMachine: './bank.js' }, 'stateMachine', 'URL of a module'],
    [
      'a class in place of a machine',
      { stateMachine: KeyValueMachine },
      'stateMachine',
      'apply and query',
    ],
    [
      'a machine with half a codec',
      { stateMachine: machine({ codec: { encode() {} } }) },
      'stateMachine',
      'decode',
    ],
    [
      'a machine of version 0',
      { stateMachine: machine({ version: 0 }) },
      'stateMachine',
      'version',
    ],
    ['a logger without levels', { logger: { log() {} } }, 'logger', 'debug, info, warn, error'],
    ['a configuration that is no object', { config: 5 }, 'configuration', 'object'],
  ])('refuses %s', async (_what, changes, field, reason) => {
    const found = await violations(changes);
    expect(found.map((violation) => violation.field)).toEqual([field]);
    expect(found[0]?.message).toContain(reason);
  });

  it('names everything that is wrong at once, the configuration included', async () => {
    const found = await violations({
      nodeId: -1,
      listen: 'nowhere',
      stateMachine: undefined,
      config: { raft: { electionTimeoutMs: 1 }, storage: { segmentBytes: 'large' } },
    });
    expect(found.map(({ field }) => field)).toEqual([
      'nodeId',
      'listen',
      'stateMachine',
      'raft.electionTimeoutMs',
      'storage.segmentBytes',
    ]);
  });

  it.each([[undefined], [null], ['./data']])(
    'needs an object with options, not %s',
    async (given) => {
      const error = await refusal(Raft.open(given as never));
      expect(error).toMatchObject({ code: 'KEELSON_INVALID_CONFIG', outcome: 'rejected' });
    },
  );

  it('says which directory it cannot make, and why', async () => {
    writeFileSync(join(root, 'file'), '');
    const dataDir = join(root, 'file', 'data');
    const error = await refusal(Raft.open(options({ dataDir })));
    expect(error).toMatchObject({
      code: 'KEELSON_STORAGE_FAILED',
      outcome: 'rejected',
      details: { dataDir, systemCode: 'ENOTDIR' },
    });
    expect(error.message).toContain(dataDir);
  });

  it.runIf(process.platform === 'linux')('says which directory it cannot lock', async () => {
    const error = await refusal(Raft.open(options({ dataDir: '/proc' })));
    expect(error).toMatchObject({ code: 'KEELSON_STORAGE_FAILED', outcome: 'rejected' });
    expect(error.message).toContain('/proc/lock-');
  });

  it('says that the manifest cannot be read, and gives up the directory again', async () => {
    const dataDir = join(root, 'data');
    mkdirSync(join(dataDir, 'manifest'), { recursive: true });
    const error = await refusal(Raft.open(options({ dataDir })));
    expect(error).toMatchObject({
      code: 'KEELSON_STORAGE_FAILED',
      details: { systemCode: 'EISDIR' },
    });
    rmSync(join(dataDir, 'manifest'), { recursive: true });
    await (await Raft.open(options({ dataDir }))).close();
  });
});

describe('a state machine that throws', () => {
  const throwing = (): never => {
    throw new Error('no room for accounts');
  };

  it.each([['open'], ['close']])('in its %s is told by an error of Keelson', async (step) => {
    const stateMachine = machine({ [step]: throwing });
    const opened = Raft.open(options({ stateMachine }));
    const error = await refusal(step === 'open' ? opened : (await opened).close());
    expect(error.code).toBe('KEELSON_STATE_MACHINE_FAILED');
    expect(error.message).toContain(`${step} of the state machine threw: no room for accounts`);
    await (await Raft.open(options())).close();
  });
});
