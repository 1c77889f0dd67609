/**
 * The one schema of the configuration: for each field its default, range, unit and one sentence. The
 * only file that knows zod. Defaults fit one another (see rules.ts) and fit a machine of 2 cores.
 */
import { z } from 'zod';
import type { Config } from './types.js';

export type FieldUnit = 'ms' | 'µs' | 'bytes' | 'count' | 'none';
export type FieldValue = number | boolean | string;

export interface FieldDescription {
  /** `section.name`. */
  readonly field: string;
  readonly type: 'integer' | 'boolean' | 'choice';
  readonly default: FieldValue;
  /** Lowest and highest value, integers only. */
  readonly min: number | undefined;
  readonly max: number | undefined;
  readonly choices: readonly string[] | undefined;
  readonly unit: FieldUnit;
  readonly about: string;
}

export interface Violation {
  /** `section.name`, or what stands at the place of a section. */
  readonly field: string;
  readonly message: string;
}

type FieldNotes = Omit<FieldDescription, 'field'>;

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const DAY_MS = 86_400_000;

const notes = z.registry<FieldNotes>();

function integer(
  unit: FieldUnit,
  [initial, min, max]: readonly [initial: number, min: number, max: number],
  about: string,
) {
  const message = `must be an integer from ${min} to ${max}${unit === 'none' ? '' : ` (${unit})`}`;
  const field = z.int(message).min(min, message).max(max, message).default(initial);
  const fixed = { default: initial, min, max, choices: undefined, unit, about };
  notes.add(field, { type: 'integer', ...fixed });
  return field;
}

function flag(initial: boolean, about: string) {
  const field = z.boolean('must be true or false').default(initial);
  const fixed = { min: undefined, max: undefined, choices: undefined, unit: 'none' } as const;
  notes.add(field, { type: 'boolean', default: initial, ...fixed, about });
  return field;
}

function choice<const Choice extends string>(
  choices: readonly [Choice, ...Choice[]],
  initial: NoInfer<Choice>,
  about: string,
) {
  const message = `must be one of ${choices.join(', ')}`;
  const base: z.ZodType<Choice> = z.enum(choices, message) as never;
  const field = base.default(initial as never);
  const fixed = { min: undefined, max: undefined, unit: 'none' } as const;
  notes.add(field, { type: 'choice', default: initial, choices, ...fixed, about });
  return field;
}

const sections = {
  raft: {
    electionTimeoutMs: integer(
      'ms',
      [1000, 1000, 600_000],
      'A follower that hears no leader for this long, plus a random part of the same length, seeks election.',
    ),
    heartbeatIntervalMs: integer(
      'ms',
      [100, 10, 60_000],
      'A leader that has nothing else to send to a peer sends a heartbeat this often.',
    ),
    preVote: flag(
      true,
      'A node asks whether it could win before it raises the term, so that a node that was cut off disturbs nobody.',
    ),
    checkQuorum: flag(true, 'A leader that hears no quorum for an election timeout steps down.'),
    maxInflightMessages: integer(
      'count',
      [64, 1, 4096],
      'Append messages to one peer that may be unanswered at a time.',
    ),
    maxInflightBytes: integer(
      'bytes',
      [16 * MIB, 64 * KIB, GIB],
      'Entry bytes to one peer that may be unanswered at a time.',
    ),
    maxAppendBytes: integer(
      'bytes',
      [MIB, 4 * KIB, 64 * MIB],
      'Entry bytes in one append message, unless a single entry is larger.',
    ),
    maxUncommittedEntries: integer(
      'count',
      [1_000_000, 1, 100_000_000],
      'A leader whose log holds this many uncommitted entries refuses proposals, so that a log without a quorum does not grow for ever.',
    ),
  },
  storage: {
    segmentBytes: integer(
      'bytes',
      [64 * MIB, MIB, GIB],
      'Size of one file of the log, fixed when the directory is made. Each start of a node allocates one whole.',
    ),
    ringBytes: integer(
      'bytes',
      [64 * MIB, MIB, 2 * GIB],
      'Shared memory per lane that stages entries for the disk and caches the newest part of the log.',
    ),
    maxIndexBytes: integer(
      'bytes',
      [256 * MIB, MIB, 2 * GIB],
      'Shared memory for the index of the log, 16 bytes for each entry kept, in equal parts for the lanes. When it is full, writes are refused as KEELSON_STORAGE_FULL until it is raised; a sixteenth, at least 256 KiB for each lane, is kept for what the log itself must write.',
    ),
    lanes: integer(
      'count',
      [1, 1, 4],
      'Independent sequences of log files, each with a thread of its own, among which the groups are divided: one group uses one of them. Fixed when the directory is made.',
    ),
    maxBatchBytes: integer(
      'bytes',
      [4 * MIB, 64 * KIB, 256 * MIB],
      'Bytes in one batch, which is what one sync of the disk makes durable, unless a single block is larger.',
    ),
    maxBatchEntries: integer('count', [65_536, 1, 1_048_576], 'Entries in one batch.'),
    maxQueuedBatches: integer(
      'count',
      [2, 1, 16],
      'Batches of a lane that may be queued to its worker while the next one fills.',
    ),
    lingerMicros: integer(
      'µs',
      [0, 0, 1_000_000],
      'Time that a batch waits for more entries although the disk is idle; the flush before it is the timer otherwise.',
    ),
    directIo: choice(
      ['auto', 'off'],
      'auto',
      'Whether segments are written past the page cache where the file system allows it.',
    ),
    recovery: choice(
      ['torn-tail', 'strict', 'repair'],
      'torn-tail',
      'What to do with an unreadable end of the log that nothing proves to be acknowledged: cut it off, or refuse to start (strict). With repair it is cut off too, and a log that has lost acknowledged data is opened for local reads alone instead of being refused.',
    ),
    flushStallMs: integer(
      'ms',
      [5000, 100, 600_000],
      'When an append has not become durable for this long, a node says so, and a leader stops its heartbeats and hands over.',
    ),
    workerStartTimeoutMs: integer(
      'ms',
      [5000, 100, 600_000],
      'Time for the threads of the log to load their files.',
    ),
  },
  network: {
    maxFrameBytes: integer(
      'bytes',
      [8 * MIB, 16 * KIB, 256 * MIB],
      'Largest frame that is sent or accepted.',
    ),
    maxQueuedBytes: integer(
      'bytes',
      [16 * MIB, 64 * KIB, GIB],
      'Bytes that may wait in the socket of one peer before appends to it are refused.',
    ),
    maxRequests: integer(
      'count',
      [16_384, 1, 1_048_576],
      'Forwarded client requests that may be unanswered at a time, and those of one peer that may be served; further writes wait for their turn.',
    ),
    connectTimeoutMs: integer(
      'ms',
      [2000, 50, 60_000],
      'Time for a connection to a peer to open, and how long an open one may be silent.',
    ),
    handshakeTimeoutMs: integer(
      'ms',
      [2000, 50, 60_000],
      'Time for a new connection to prove who it is.',
    ),
    reconnectMinMs: integer(
      'ms',
      [50, 1, 60_000],
      'Wait before the first new attempt to connect; it doubles with each failure, with jitter.',
    ),
    reconnectMaxMs: integer(
      'ms',
      [2000, 1, 600_000],
      'Longest wait between two attempts to connect.',
    ),
  },
  limits: {
    maxEntryBytes: integer('bytes', [MIB, 1, 64 * MIB], 'Largest encoded command.'),
    maxPendingWrites: integer(
      'count',
      [65_536, 1, 10_000_000],
      'Writes that may be accepted and unanswered at a time, here or on the way to the leader; more are refused as overloaded.',
    ),
    maxPendingBytes: integer(
      'bytes',
      [32 * MIB, 4 * KIB, 2 * GIB],
      'Encoded commands that may be accepted and unanswered at a time, here or on the way to the leader.',
    ),
    maxPendingReads: integer(
      'count',
      [65_536, 1, 10_000_000],
      'Reads that may be unanswered at a time, on a leader also those that followers ask about; more are refused as overloaded.',
    ),
    callTimeoutMs: integer(
      'ms',
      [10_000, 1, DAY_MS],
      'Time for a whole call, where the caller gives none.',
    ),
    shutdownTimeoutMs: integer(
      'ms',
      [10_000, 100, 600_000],
      'Time for an orderly close; what is not done then is abandoned, as after a crash.',
    ),
  },
  stateMachine: {
    maxApplyEntries: integer(
      'count',
      [4096, 1, 1_048_576],
      'Entries that the state machine gets in one call of apply.',
    ),
    maxApplyBytes: integer(
      'bytes',
      [4 * MIB, 4 * KIB, 256 * MIB],
      'Payload bytes that the state machine gets in one call of apply, unless a single entry is larger.',
    ),
    applySliceMs: integer(
      'ms',
      [8, 1, 1000],
      'Time after which a state machine on the main thread lets sockets and timers live.',
    ),
    maxQueuedApplies: integer(
      'count',
      [4, 1, 256],
      'Apply tasks that may be queued to the worker of a state machine.',
    ),
    workerStartTimeoutMs: integer(
      'ms',
      [5000, 100, 600_000],
      'Time for a worker to load its file and the module of the state machine.',
    ),
  },
  snapshot: {
    everyEntries: integer(
      'count',
      [100_000, 0, 1_000_000_000],
      'A snapshot is built when this many entries were applied since the last one, so that the log before it may go; 0: never for their number.',
    ),
    everyBytes: integer(
      'bytes',
      [256 * MIB, 0, 1024 * GIB],
      'A snapshot is built when entries of this size were applied since the last one; 0: never for their size.',
    ),
    keep: integer(
      'count',
      [2, 1, 64],
      'Snapshots that are kept. The log is kept behind the oldest of them, so that a start can fall back to it when a newer one is damaged.',
    ),
    keepEntries: integer(
      'count',
      [10_000, 0, 100_000_000],
      'Entries that the log keeps beyond those that the oldest kept snapshot makes necessary, so that a follower that was away for a moment needs no snapshot.',
    ),
    buildTimeoutMs: integer(
      'ms',
      [600_000, 1_000, 86_400_000],
      'A snapshot that is not built within this time is given up, and tried again later.',
    ),
    chunkBytes: integer(
      'bytes',
      [256 * KIB, 4 * KIB, MIB],
      'Bytes of a snapshot that are built, written and sent at a time.',
    ),
    maxInflightBytes: integer(
      'bytes',
      [4 * MIB, 4 * KIB, 256 * MIB],
      'Bytes of a snapshot that may be under way to one follower and not yet in its file.',
    ),
    maxBytesPerSecond: integer(
      'bytes',
      [0, 0, 1024 * GIB],
      'Bytes of a snapshot that are sent to one follower in a second; 0: as fast as it takes them.',
    ),
  },
  http: {
    maxKeyBytes: integer('bytes', [1024, 1, 4096], 'Longest key, in UTF-8.'),
    maxConcurrentRequests: integer(
      'count',
      [4096, 1, 1_048_576],
      'Requests for keys that are served at a time; more are refused as overloaded.',
    ),
    maxBufferedBodyBytes: integer(
      'bytes',
      [64 * MIB, 1, 4 * GIB],
      'Bodies of requests that are held at a time; more are refused as overloaded.',
    ),
    maxBufferedAnswerBytes: integer(
      'bytes',
      [64 * MIB, 1, 4 * GIB],
      'Values and pages that wait for clients to take them; further reads are refused as overloaded.',
    ),
    maxConnections: integer(
      'count',
      [8192, 1, 1_048_576],
      'Connections that may be open at a time; more are closed as they come.',
    ),
    maxHeaderBytes: integer(
      'bytes',
      [16 * KIB, 4 * KIB, MIB],
      'Request line and headers of one request together.',
    ),
    headersTimeoutMs: integer(
      'ms',
      [10_000, 1000, 3_600_000],
      'Time for the headers of a request to arrive.',
    ),
    requestTimeoutMs: integer(
      'ms',
      [60_000, 1000, 3_600_000],
      'Time for a whole request to arrive.',
    ),
    keepAliveTimeoutMs: integer(
      'ms',
      [65_000, 1, 3_600_000],
      'How long an idle connection is kept; longer than the 60 s that load balancers assume.',
    ),
    readyLagEntries: integer(
      'count',
      [10_000, 0, 1_000_000_000],
      'Committed entries that a node may not have applied yet and still be ready.',
    ),
  },
};

const schema = z.strictObject(
  mapValues(sections, (fields) => {
    const section = z.strictObject(fields as z.core.$ZodShape, { error: sectionMessage });
    return section.prefault({});
  }),
  { error: sectionMessage },
);

/** Compiles only while the hand-written types and the schema name the same fields. */
type Parsed = { [S in keyof typeof sections]: z.output<z.ZodObject<(typeof sections)[S]>> };
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : never) : never;
const typesAgree: Same<Parsed, Config> = true;

export interface ParsedConfig {
  /** Given values, and defaults for the rest and for fields with a violation. */
  readonly config: Config;
  readonly violations: Violation[];
}

/** Checks each field by itself; see rules.ts for what must hold between fields. */
export function parseFields(input: unknown): ParsedConfig {
  const result = schema.safeParse(input);
  if (result.success && typesAgree) {
    return { config: result.data as unknown as Config, violations: [] };
  }
  const violations: Violation[] = [];
  for (const issue of result.error?.issues ?? []) {
    const place = issue.path.map(String);
    if (issue.code === 'unrecognized_keys') {
      for (const key of issue.keys) {
        violations.push({ field: [...place, key].join('.'), message: 'is not a known field' });
      }
    } else {
      violations.push({ field: place.join('.') || 'configuration', message: issue.message });
    }
  }
  return { config: withoutViolations(input, violations), violations };
}

/** What was given where it is valid, and the default elsewhere, so that rules can be checked too. */
function withoutViolations(input: unknown, violations: readonly Violation[]): Config {
  const bad = new Set(violations.map(({ field }) => field));
  const config: Record<string, Record<string, unknown>> = {};
  for (const { field, default: initial } of describeConfig()) {
    const [section, name] = field.split('.') as [string, string];
    const given = (input as Record<string, Record<string, unknown> | undefined> | null)?.[section];
    config[section] ??= {};
    config[section][name] =
      bad.has(field) || bad.has(section) ? initial : (given?.[name] ?? initial);
  }
  return config as unknown as Config;
}

/** All fields, in the order of the schema. */
export function describeConfig(): FieldDescription[] {
  return Object.entries(sections).flatMap(([section, fields]) =>
    Object.entries(fields).map(([name, field]) => ({
      field: `${section}.${name}`,
      ...notes.get(field as never)!,
    })),
  );
}

function sectionMessage(issue: { readonly code?: string | undefined }): string | undefined {
  return issue.code === 'invalid_type' ? 'must be an object' : undefined;
}

function mapValues<Key extends string, Value, Mapped>(
  object: Record<Key, Value>,
  map: (value: Value) => Mapped,
): Record<Key, Mapped> {
  const mapped: Partial<Record<Key, Mapped>> = {};
  for (const key of Object.keys(object) as Key[]) mapped[key] = map(object[key]);
  return mapped as Record<Key, Mapped>;
}
