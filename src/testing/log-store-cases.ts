/**
 * What every log store must do, whoever has built it: see `LogStoreFixture` for how a store is brought, and
 * `logStoreCrashCases` and `logStoreFaultCases` for crashes and failing disks.
 */
import type { ConformanceCase } from './conformance.js';
import { logStoreExchangeCases } from './log-store-exchange-cases.js';
import type { MakeLogStoreFixture } from './log-store-fixture.js';
import { logStoreRecoveryCases } from './log-store-recovery-cases.js';
import { logStoreWritingCases } from './log-store-writing-cases.js';

/** `makeFixture` is called for each case anew. */
export function logStoreCases(makeFixture: MakeLogStoreFixture): ConformanceCase[] {
  return [
    ...logStoreWritingCases(makeFixture),
    ...logStoreRecoveryCases(makeFixture),
    ...logStoreExchangeCases(makeFixture),
  ];
}
