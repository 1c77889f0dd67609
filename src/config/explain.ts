/**
 * What the bounded memory of a node adds up to. Every queue, cache and buffer of Keelson has a limit;
 * the state of the application's machine, and Node.js itself, come on top.
 */
import type { Config } from './types.js';

export interface MemoryItem {
  readonly name: string;
  readonly bytes: number;
  /** The fields that decide it, as a formula. */
  readonly formula: string;
}

export interface MemoryExplanation {
  readonly items: readonly MemoryItem[];
  readonly totalBytes: number;
}

/** Zeros and alignment, and for each lane control slots and scratch areas; generous. */
const LOG_WORKING_BYTES = 3 * 1024 * 1024;
const LANE_WORKING_BYTES = 1024 * 1024;
/** Buffers of the files that the thread of snapshots has open. */
const SNAPSHOT_THREAD_BYTES = 8 * 1024 * 1024;
/** What a connection may hold of control messages before it drops them. */
const CONTROL_QUEUE_BYTES = 1024 * 1024;

/** `peers`: other nodes of the cluster; 2 in a cluster of three. */
export function explainMemory(config: Config, peers = 2): MemoryExplanation {
  const { storage, network, raft, limits, stateMachine, snapshot, http } = config;
  const items: MemoryItem[] = [
    {
      name: 'log ring and cache',
      bytes: storage.ringBytes * storage.lanes,
      formula: 'storage.ringBytes × storage.lanes',
    },
    {
      name: 'room to read from segments',
      bytes: (Math.min(storage.ringBytes, storage.segmentBytes) / 4) * storage.lanes,
      formula: 'the smaller of storage.ringBytes and storage.segmentBytes ÷ 4 × storage.lanes',
    },
    {
      name: 'working areas of the log',
      bytes: LOG_WORKING_BYTES + LANE_WORKING_BYTES * storage.lanes,
      formula: '3 MiB + 1 MiB × storage.lanes',
    },
    { name: 'log index', bytes: storage.maxIndexBytes, formula: 'storage.maxIndexBytes' },
    {
      name: 'entries read from segments for peers',
      bytes: raft.maxInflightBytes * peers,
      formula: `raft.maxInflightBytes × ${peers} peers`,
    },
    {
      name: 'send queues',
      bytes: network.maxQueuedBytes * peers,
      formula: `network.maxQueuedBytes × ${peers} peers`,
    },
    {
      name: 'control queues',
      bytes: CONTROL_QUEUE_BYTES * peers,
      formula: `1 MiB × ${peers} peers`,
    },
    {
      name: 'answers to requests of peers',
      bytes: (network.maxQueuedBytes + network.maxFrameBytes) * peers,
      formula: `(network.maxQueuedBytes + network.maxFrameBytes) × ${peers} peers`,
    },
    {
      name: 'receive buffers',
      bytes: network.maxFrameBytes * 2 * peers,
      formula: `network.maxFrameBytes × 2 connections × ${peers} peers`,
    },
    { name: 'writes that wait', bytes: limits.maxPendingBytes, formula: 'limits.maxPendingBytes' },
    {
      name: 'entries copied for the state machine',
      bytes: stateMachine.maxApplyBytes * stateMachine.maxQueuedApplies,
      formula: 'stateMachine.maxApplyBytes × stateMachine.maxQueuedApplies',
    },
    {
      name: 'snapshots that are sent',
      bytes: snapshot.maxInflightBytes * peers,
      formula: `snapshot.maxInflightBytes × ${peers} peers`,
    },
    {
      name: 'snapshots that are received or built',
      bytes: snapshot.maxInflightBytes + snapshot.chunkBytes * 4,
      formula: 'snapshot.maxInflightBytes + snapshot.chunkBytes × 4',
    },
    { name: 'the thread of snapshots', bytes: SNAPSHOT_THREAD_BYTES, formula: 'fixed' },
    {
      name: 'HTTP: requests that arrive',
      bytes: http.maxConnections * http.maxHeaderBytes,
      formula: 'http.maxConnections × http.maxHeaderBytes',
    },
    {
      name: 'HTTP: bodies',
      bytes: http.maxBufferedBodyBytes,
      formula: 'http.maxBufferedBodyBytes',
    },
    {
      name: 'HTTP: answers',
      bytes: http.maxBufferedAnswerBytes,
      formula: 'http.maxBufferedAnswerBytes',
    },
  ];
  return { items, totalBytes: items.reduce((sum, { bytes }) => sum + bytes, 0) };
}
