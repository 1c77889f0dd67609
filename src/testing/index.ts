/** Helpers for the tests of applications that embed Keelson. */
export type {
  EntriesLease,
  EntriesToStage,
  LogStore,
  LogStoreEvents,
  LogStoreMetrics,
  StagedEntries,
} from '../storage/log-store.js';
export type { ConformanceCase } from './conformance.js';
export { logStoreCases } from './log-store-cases.js';
export { logStoreCrashCases, logStoreFaultCases } from './log-store-crash-cases.js';
export type {
  CrashingLogStoreFixture,
  FailingLogStoreFixture,
  LogStoreFixture,
} from './log-store-fixture.js';
export { stateMachineCases } from './state-machine-cases.js';
export type { StateMachineFixture } from './state-machine-fixture.js';
export { TestCluster, type TestClusterOptions, testCluster } from './test-cluster.js';
export { decodeTestMembership } from './test-membership.js';
