/**
 * The routes of the key-value machine. A key is a non-empty string, a value is raw bytes.
 *
 *     PUT    /v1/kv/{key}?ifVersion=N    200 {"version","logIndex","term"}, 412 if the version differs
 *     GET    /v1/kv/{key}?consistency=C  200 and the bytes, 404
 *     DELETE /v1/kv/{key}?ifVersion=N    like PUT, with "existed"
 *     GET    /v1/kv?prefix=&start=&end=&limit=&consistency=C
 *
 * Every request is checked completely before anything is proposed: a refused one changes nothing.
 */
import type { CallOptions, Consistency, RaftHandle } from '../api.js';
import type { LogId } from '../engine/types.js';
import type {
  KeyValueAnswer,
  KeyValueCommand,
  KeyValueQuery,
  KeyValueRange,
  KeyValueResponse,
  VersionedValue,
} from '../state-machine/key-value.js';
import { HttpFailure, malformed } from './errors.js';
import { type Answer, jsonAnswer } from './reply.js';
import { onlyParameters, type RequestTarget, wholeNumber } from './request-target.js';

export type KeyValueRaft = RaftHandle<
  KeyValueCommand,
  KeyValueResponse,
  KeyValueQuery,
  KeyValueAnswer
>;

export const DEFAULT_RANGE_LIMIT = 100;
export const MAX_RANGE_LIMIT = 1_000;

export function checkKey(key: string, maxKeyBytes: number): void {
  if (key === '') throw malformed('the key is empty');
  if (Buffer.byteLength(key) > maxKeyBytes) {
    throw malformed(`the key is longer than ${maxKeyBytes} bytes`);
  }
}

/** Reads what a PUT or DELETE asks for besides its key and body. */
export function writeCondition(target: RequestTarget): { readonly ifVersion?: number } {
  onlyParameters(target.parameters, ['ifVersion']);
  const text = target.parameters.get('ifVersion');
  if (text === undefined) return {};
  return { ifVersion: wholeNumber('ifVersion', text, 0, Number.MAX_SAFE_INTEGER) };
}

export async function put(
  raft: KeyValueRaft,
  key: string,
  value: Uint8Array,
  condition: { readonly ifVersion?: number },
  call: CallOptions,
): Promise<Answer> {
  const { response, logId } = await raft.write({ op: 'put', key, value, ...condition }, call);
  if (!response.ok) throw notWritten(key, response);
  return writtenAnswer({ version: response.version }, logId);
}

export async function remove(
  raft: KeyValueRaft,
  key: string,
  condition: { readonly ifVersion?: number },
  call: CallOptions,
): Promise<Answer> {
  const { response, logId } = await raft.write({ op: 'delete', key, ...condition }, call);
  if (!response.ok) throw notWritten(key, response);
  return writtenAnswer({ version: response.version, existed: response.existed }, logId);
}

function writtenAnswer(
  fields: { readonly version: number; readonly existed?: boolean },
  logId: LogId,
): Answer {
  const headers = { 'keelson-version': String(fields.version) };
  const logIndex = logId.index;
  return jsonAnswer(200, { ...fields, logIndex, term: logId.term }, { headers, logIndex });
}

function notWritten(
  key: string,
  { version, invalid }: Extract<KeyValueResponse, { ok: false }>,
): HttpFailure {
  if (invalid !== undefined) return malformed(invalid);
  const present = version === 0 ? 'does not exist' : `is at version ${version}`;
  return new HttpFailure(412, 'KEELSON_VERSION_MISMATCH', `key "${key.slice(0, 100)}" ${present}`, {
    headers: { 'keelson-version': String(version) },
    fields: { version },
  });
}

export async function get(
  raft: KeyValueRaft,
  key: string,
  target: RequestTarget,
  call: CallOptions,
): Promise<Answer> {
  onlyParameters(target.parameters, ['consistency']);
  const options = { ...call, ...readConsistency(target) };
  const found = (await raft.read({ op: 'get', key }, options)) as VersionedValue | undefined;
  if (found === undefined) {
    throw new HttpFailure(
      404,
      'KEELSON_KEY_NOT_FOUND',
      `key "${key.slice(0, 100)}" does not exist`,
    );
  }
  return {
    status: 200,
    headers: { 'keelson-version': String(found.version) },
    body: found.value,
    contentType: 'application/octet-stream',
  };
}

export async function range(
  raft: KeyValueRaft,
  target: RequestTarget,
  call: CallOptions,
): Promise<Answer> {
  const { parameters } = target;
  onlyParameters(parameters, ['prefix', 'start', 'end', 'limit', 'consistency']);
  const limit = wholeNumber(
    'limit',
    parameters.get('limit') ?? String(DEFAULT_RANGE_LIMIT),
    1,
    MAX_RANGE_LIMIT,
  );
  const query: KeyValueQuery = {
    op: 'range',
    limit,
    prefix: parameters.get('prefix'),
    start: parameters.get('start'),
    end: parameters.get('end'),
  };
  const options = { ...call, ...readConsistency(target) };
  const { entries, next } = (await raft.read(query, options)) as KeyValueRange;
  return jsonAnswer(200, {
    entries: entries.map(({ key, value, version }) => ({
      key,
      value: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64'),
      version,
    })),
    next,
  });
}

function readConsistency(target: RequestTarget): { readonly consistency: Consistency } {
  const consistency = target.parameters.get('consistency') ?? 'linearizable';
  if (consistency !== 'linearizable' && consistency !== 'local') {
    throw malformed('consistency must be "linearizable" or "local"');
  }
  return { consistency };
}
