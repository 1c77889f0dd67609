/** How the cases for log stores open stores, and what they have in common. */
import type { IoId, RecoveredLog } from '../engine/types.js';
import type { LogStore, LogStoreEvents } from '../storage/log-store.js';
import type { ConformanceCase } from './conformance.js';
import type { LogEntry } from './log-blocks.js';
import { LogDriver } from './log-driver.js';

export interface LogStoreFixture {
  /**
   * Opens the store on what the last one left, which was closed or has crashed: nothing, the first time.
   * Memberships are JSON: open it with `decodeTestMembership`.
   */
  open(events: LogStoreEvents): Promise<LogStore>;
  /** Another store, empty, for blocks that travel. */
  openOther(events: LogStoreEvents): Promise<LogStore>;
  /** Most payload bytes that one entry may have; much larger ones are OVERLOADED. */
  readonly maxPayloadBytes: number;
  /** Called once, after a case has closed its stores. */
  dispose(): Promise<void>;
}

export interface CrashingLogStoreFixture extends LogStoreFixture {
  /**
   * Ends the open store as a loss of power does: it does nothing more, and what it has not made durable
   * may be gone.
   */
  crash(): void | Promise<void>;
}

export interface FailingLogStoreFixture extends LogStoreFixture {
  /** From now on all writes and syncs of the open store fail, until it is opened again. */
  failWrites(): void | Promise<void>;
}

export type MakeFixture<Fixture> = () => Fixture | Promise<Fixture>;
export type MakeLogStoreFixture = MakeFixture<LogStoreFixture>;

/** The stores of one case. */
export class LogStores {
  readonly fixture: LogStoreFixture;
  private readonly drivers: Map<string, LogDriver> = new Map();
  private readonly opened: LogStore[] = [];
  /** A failure that no case asked for. */
  private failure: Error | undefined;

  constructor(fixture: LogStoreFixture) {
    this.fixture = fixture;
  }

  async open(): Promise<LogStore> {
    return this.keep(await this.fixture.open(this.eventsOf('own')));
  }

  async openDriver(): Promise<LogDriver> {
    const store = await this.open();
    store.recovered(0);
    return this.drive(store);
  }

  /** A driver of the other store. */
  async openOther(): Promise<LogDriver> {
    const store = this.keep(await this.fixture.openOther(this.eventsOf('other')));
    store.recovered(0);
    const driver = new LogDriver(store, 0);
    this.drivers.set('other/0', driver);
    return driver;
  }

  drive(store: LogStore, group = 0, model: LogEntry[] = []): LogDriver {
    const driver = new LogDriver(store, group, model);
    this.drivers.set(`own/${group}`, driver);
    return driver;
  }

  /** Closes the store of a driver and opens it again. */
  async reopen(driver: LogDriver): Promise<{ next: LogDriver; found: RecoveredLog }> {
    await driver.store.close();
    const store = await this.open();
    const found = store.recovered(driver.group);
    const next = this.drive(store, driver.group, driver.model);
    next.term = driver.term;
    next.purged = driver.purged;
    return { next, found };
  }

  async dispose(): Promise<void> {
    try {
      for (const store of this.opened) await store.close();
    } finally {
      await this.fixture.dispose();
    }
    if (this.failure !== undefined) throw this.failure;
  }

  private keep(store: LogStore): LogStore {
    this.opened.push(store);
    return store;
  }

  private eventsOf(which: string): LogStoreEvents {
    return {
      flushed: (group: number, io: IoId) => this.drivers.get(`${which}/${group}`)?.flushed.push(io),
      failed: (failure) => {
        this.failure ??= failure;
      },
      writable: () => {},
    };
  }
}

/** A case with stores of its own, which are closed when it is done. */
export function logStoreCase(
  makeFixture: MakeLogStoreFixture,
  name: string,
  body: (stores: LogStores) => Promise<void>,
): ConformanceCase {
  return {
    name,
    async run() {
      const stores = new LogStores(await makeFixture());
      try {
        await body(stores);
      } catch (error) {
        // What it failed with says more than what its stores say when they are closed.
        await Promise.allSettled([stores.dispose()]);
        throw error;
      }
      await stores.dispose();
    },
  };
}
