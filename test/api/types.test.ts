import { describe, expectTypeOf, it } from 'vitest';
import type { WriteResult } from '../../dist/index.js';
import { Raft } from '../../dist/index.js';
import { testCluster } from '../../dist/testing/index.js';
import type { Bank, Command, Query, Response } from '../../examples/bank/bank.js';

declare const bank: Bank;
const place = {
  nodeId: 1,
  clusterName: 'bank',
  dataDir: './data',
  listen: '127.0.0.1:0',
  bootstrap: { voters: { 1: '127.0.0.1:7001' } },
};

describe('types flow from the state machine', () => {
  it('to Raft.open, without explicit generics', () => {
    const open = () => Raft.open({ ...place, stateMachine: bank });
    type Opened = Awaited<ReturnType<typeof open>>;
    expectTypeOf<Opened>().toEqualTypeOf<Raft<Command, Response, Query, number>>();
    expectTypeOf<Opened['write']>().parameter(0).toEqualTypeOf<Command>();
    expectTypeOf<ReturnType<Opened['write']>>().toEqualTypeOf<Promise<WriteResult<Response>>>();
    expectTypeOf<ReturnType<Opened['read']>>().toEqualTypeOf<Promise<number>>();
  });

  it('to testCluster', () => {
    const open = () => testCluster({ stateMachine: () => bank });
    type Opened = Awaited<ReturnType<typeof open>>;
    expectTypeOf<Opened['nodes'][number]>().toEqualTypeOf<Raft<Command, Response, Query, number>>();
  });

  it('and are named explicitly for a module', () => {
    const open = () =>
      Raft.open<Command, Response, Query, number>({
        ...place,
        stateMachine: new URL('./bank.js', import.meta.url),
      });
    expectTypeOf(open).returns.resolves.toEqualTypeOf<Raft<Command, Response, Query, number>>();
  });

  it('so that a wrong command does not compile', () => {
    const write = (raft: Raft<Command, Response, Query, number>) =>
      // @ts-expect-error: no such operation
      raft.write({ op: 'burn', from: 'ann', amount: 1 });
    expectTypeOf(write).toBeFunction();
  });
});
