/**
 * The log index of one group: where each entry stands in the segment files. Layout: INDEX_DESCRIPTOR
 * in src/wasm/abi.ts; entries in chunks that the caller provides, terms as runs beside them. One
 * thread writes and reads; it works on blocks that have been verified, yet never reads or writes
 * outside what it was given.
 */
import { blockEnd, rangeEnd } from './batch';
import * as L from './layout';

function entryAt(descriptor: usize, slot: u64): usize {
  const directory = <usize>load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_DIRECTORY);
  const chunk = <usize>(slot / L.INDEX_CHUNK_ENTRIES);
  const inChunk = <usize>(slot % L.INDEX_CHUNK_ENTRIES);
  return <usize>load<u32>(directory + (chunk << 2)) + inChunk * L.INDEX_ENTRY_BYTES;
}

/** Its slot in the chunks. */
function slotOf(descriptor: usize, index: u64): u64 {
  return index - load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_BASE);
}

function runAt(descriptor: usize, run: u32): usize {
  const runs = <usize>load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUNS);
  return runs + <usize>run * L.TERM_RUN_BYTES;
}

/** The last run that starts at or before `index`, -1 if none does. */
function findRun(descriptor: usize, index: u64): i32 {
  let low: i32 = 0;
  let high = load<i32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (load<u64>(runAt(descriptor, middle), L.TERM_RUN_OFFSET_FIRST_INDEX) <= index) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

/** Runs that end before `index`: one that an entry of `term` continues there is not among them. */
function runsBefore(descriptor: usize, index: u64, term: u64): u32 {
  if (index === load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX)) return 0;
  const last = findRun(descriptor, index - 1);
  if (last < 0) return 0;
  return load<u64>(runAt(descriptor, last), L.TERM_RUN_OFFSET_TERM) === term ? last : last + 1;
}

/** Counts entries and runs of one term; 0 entries when the blocks are not consecutive and whole. */
function countEntries(descriptor: usize, pointer: usize, length: u32): u64 {
  const end = <u64>pointer + <u64>length;
  if (end !== rangeEnd(pointer, length)) return 0;
  let entries: u64 = 0;
  let runs: u32 = 0;
  let term: u64 = 0;
  let block = pointer;
  let index: u64 = 0;
  while (<u64>block < end) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0) return 0;
    const firstIndex = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
    if (entries !== 0 && firstIndex !== index) return 0;
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    const payloads = <u64>load<u32>(block, L.BLOCK_OFFSET_PAYLOAD_LENGTH);
    let payloadBytes: u64 = 0;
    let item = block + L.BLOCK_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const itemTerm = load<u64>(item, L.ITEM_OFFSET_TERM);
      if (itemTerm !== term || runs === 0) runs++;
      term = itemTerm;
      payloadBytes += load<u32>(item, L.ITEM_OFFSET_LENGTH);
      item += L.ITEM_BYTES;
    }
    if (payloadBytes !== payloads) return 0;
    entries += count;
    index = firstIndex + count;
    block = <usize>nextBlock;
  }
  store<u32>(descriptor, runs, L.INDEX_DESCRIPTOR_OFFSET_WANTED_RUNS);
  return entries;
}

export function indexAppendBlocks(
  descriptor: usize,
  pointer: usize,
  length: u32,
  segment: u32,
  position: u32,
): f64 {
  const entries = countEntries(descriptor, pointer, length);
  if (entries === 0 || <u64>position + <u64>length > u32.MAX_VALUE) return 0;
  const first = load<u64>(pointer, L.BLOCK_OFFSET_FIRST_INDEX);
  const indexFirst = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const indexNext = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  if (first > indexNext) return 0;
  // What is purged is left out. When that is all of it, it still takes the place of what stands behind.
  const from = max<u64>(first, indexFirst);
  if (first + entries <= from) {
    truncate(descriptor, from);
    return <f64>(from - 1);
  }

  let slot = slotOf(descriptor, from);
  const chunks = <u64>load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_CHUNKS);
  const firstTerm = load<u64>(pointer + L.BLOCK_BYTES, L.ITEM_OFFSET_TERM);
  const wantedRuns =
    <u64>runsBefore(descriptor, from, firstTerm) +
    load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_WANTED_RUNS);
  const runCapacity = <u64>load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_CAPACITY);
  const slots = slot + (first + entries - from);
  if (slots > chunks * L.INDEX_CHUNK_ENTRIES || wantedRuns > runCapacity) {
    store<u32>(descriptor, <u32>slots, L.INDEX_DESCRIPTOR_OFFSET_WANTED_ENTRIES);
    store<u32>(descriptor, <u32>wantedRuns, L.INDEX_DESCRIPTOR_OFFSET_WANTED_RUNS);
    return -1;
  }

  truncate(descriptor, from);
  const end = pointer + length;
  let index = first;
  let block = pointer;
  let runCount = load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  let term = runCount ? load<u64>(runAt(descriptor, runCount - 1), L.TERM_RUN_OFFSET_TERM) : <u64>0;
  let addedBytes: u64 = 0;
  while (block !== end) {
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let item = block + L.BLOCK_BYTES;
    let payload = item + <usize>count * L.ITEM_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const payloadLength = load<u32>(item, L.ITEM_OFFSET_LENGTH);
      if (index < from) {
        payload += payloadLength;
        item += L.ITEM_BYTES;
        index++;
        continue;
      }
      const entry = entryAt(descriptor, slot);
      store<u32>(entry, segment, L.INDEX_ENTRY_OFFSET_SEGMENT);
      store<u32>(entry, position + <u32>(item - pointer), L.INDEX_ENTRY_OFFSET_ITEM_POSITION);
      store<u32>(entry, position + <u32>(payload - pointer), L.INDEX_ENTRY_OFFSET_PAYLOAD_POSITION);
      store<u32>(entry, payloadLength, L.INDEX_ENTRY_OFFSET_LENGTH);
      const itemTerm = load<u64>(item, L.ITEM_OFFSET_TERM);
      if (itemTerm !== term || runCount === 0) {
        const run = runAt(descriptor, runCount);
        store<u64>(run, index, L.TERM_RUN_OFFSET_FIRST_INDEX);
        store<u64>(run, itemTerm, L.TERM_RUN_OFFSET_TERM);
        runCount++;
        term = itemTerm;
      }
      addedBytes += <u64>L.ITEM_BYTES + payloadLength;
      payload += payloadLength;
      item += L.ITEM_BYTES;
      slot++;
      index++;
    }
    block = payload;
  }
  store<f64>(descriptor, <f64>addedBytes, L.INDEX_DESCRIPTOR_OFFSET_ADDED_BYTES);
  store<u32>(descriptor, runCount, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  store<u64>(descriptor, index, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  return <f64>(index - 1);
}

export function indexSkip(descriptor: usize, lastIndex: f64): i32 {
  const next = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  const end = <u64>lastIndex + 1;
  if (end <= next) return 1;
  const slots = slotOf(descriptor, end);
  const chunks = <u64>load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_CHUNKS);
  const runCount = load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  const runCapacity = load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_CAPACITY);
  if (slots > chunks * L.INDEX_CHUNK_ENTRIES || runCount === runCapacity) {
    store<u32>(descriptor, <u32>slots, L.INDEX_DESCRIPTOR_OFFSET_WANTED_ENTRIES);
    store<u32>(descriptor, runCount + 1, L.INDEX_DESCRIPTOR_OFFSET_WANTED_RUNS);
    return -1;
  }
  for (let slot = slotOf(descriptor, next); slot < slots; slot++) {
    memory.fill(entryAt(descriptor, slot), 0, L.INDEX_ENTRY_BYTES);
  }
  const run = runAt(descriptor, runCount);
  store<u64>(run, next, L.TERM_RUN_OFFSET_FIRST_INDEX);
  store<u64>(run, 0, L.TERM_RUN_OFFSET_TERM);
  store<u32>(descriptor, runCount + 1, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  store<u64>(descriptor, end, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  return 1;
}

export function indexMoveBlocks(
  descriptor: usize,
  pointer: usize,
  length: u32,
  fromSegment: u32,
  fromPosition: u32,
  segment: u32,
  position: u32,
): f64 {
  const end = rangeEnd(pointer, length);
  const indexFirst = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const indexNext = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  let last: u64 = 0;
  let block = pointer;
  while (<u64>block < end) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0) return 0;
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let index = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
    let item = block + L.BLOCK_BYTES;
    let payload = item + <usize>count * L.ITEM_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const itemOffset = <u32>(item - pointer);
      if (index >= indexFirst && index < indexNext) {
        const entry = entryAt(descriptor, slotOf(descriptor, index));
        if (
          load<u32>(entry, L.INDEX_ENTRY_OFFSET_SEGMENT) === fromSegment &&
          load<u32>(entry, L.INDEX_ENTRY_OFFSET_ITEM_POSITION) === fromPosition + itemOffset
        ) {
          store<u32>(entry, segment, L.INDEX_ENTRY_OFFSET_SEGMENT);
          store<u32>(entry, position + itemOffset, L.INDEX_ENTRY_OFFSET_ITEM_POSITION);
          const payloadPosition = position + <u32>(payload - pointer);
          store<u32>(entry, payloadPosition, L.INDEX_ENTRY_OFFSET_PAYLOAD_POSITION);
          last = index;
        }
      }
      payload += load<u32>(item, L.ITEM_OFFSET_LENGTH);
      item += L.ITEM_BYTES;
      index++;
    }
    block = <usize>nextBlock;
  }
  return <f64>last;
}

/** Whether the index has those entries of a verified block that it holds under their term, or under none. */
function sameTerms(descriptor: usize, block: usize, indexFirst: u64, indexNext: u64): bool {
  const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
  let index = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
  let item = block + L.BLOCK_BYTES;
  for (let i: u32 = 0; i < count; i++) {
    if (index >= indexFirst && index < indexNext) {
      const run = findRun(descriptor, index);
      const term = run < 0 ? 0 : load<u64>(runAt(descriptor, run), L.TERM_RUN_OFFSET_TERM);
      if (term !== 0 && term !== load<u64>(item, L.ITEM_OFFSET_TERM)) return false;
    }
    item += L.ITEM_BYTES;
    index++;
  }
  return true;
}

export function indexPlaceBlocks(
  descriptor: usize,
  pointer: usize,
  length: u32,
  segment: u32,
  position: u32,
): f64 {
  const end = rangeEnd(pointer, length);
  if (<u64>position + <u64>length > u32.MAX_VALUE) return 0;
  const indexFirst = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const indexNext = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  for (let block = pointer; <u64>block < end; ) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0 || !sameTerms(descriptor, block, indexFirst, indexNext)) return 0;
    block = <usize>nextBlock;
  }
  let last: u64 = 0;
  let block = pointer;
  while (<u64>block < end) {
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let index = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
    let item = block + L.BLOCK_BYTES;
    let payload = item + <usize>count * L.ITEM_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      const payloadLength = load<u32>(item, L.ITEM_OFFSET_LENGTH);
      if (index >= indexFirst && index < indexNext) {
        const entry = entryAt(descriptor, slotOf(descriptor, index));
        store<u32>(entry, segment, L.INDEX_ENTRY_OFFSET_SEGMENT);
        store<u32>(entry, position + <u32>(item - pointer), L.INDEX_ENTRY_OFFSET_ITEM_POSITION);
        const payloadPosition = position + <u32>(payload - pointer);
        store<u32>(entry, payloadPosition, L.INDEX_ENTRY_OFFSET_PAYLOAD_POSITION);
        store<u32>(entry, payloadLength, L.INDEX_ENTRY_OFFSET_LENGTH);
        last = index;
      }
      payload += payloadLength;
      item += L.ITEM_BYTES;
      index++;
    }
    block = <usize>blockEnd(block, end);
  }
  return <f64>last;
}

export function indexBytes(descriptor: usize, firstIndex: f64, lastIndex: f64): f64 {
  const last = slotOf(descriptor, <u64>lastIndex);
  let bytes: u64 = 0;
  for (let slot = slotOf(descriptor, <u64>firstIndex); slot <= last; slot++) {
    const entry = entryAt(descriptor, slot);
    // An entry of which nothing is known stands in no segment, and takes up nothing.
    if (load<u32>(entry, L.INDEX_ENTRY_OFFSET_SEGMENT) === 0) continue;
    bytes += <u64>L.ITEM_BYTES + load<u32>(entry, L.INDEX_ENTRY_OFFSET_LENGTH);
  }
  return <f64>bytes;
}

/** Forgets the entries from `nextIndex` on. */
function truncate(descriptor: usize, nextIndex: u64): void {
  const first = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const next = max<u64>(nextIndex, first);
  if (next >= load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX)) return;
  store<u64>(descriptor, next, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  const runs = next === first ? 0 : findRun(descriptor, next - 1) + 1;
  store<u32>(descriptor, runs, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
}

export function indexTruncateAfter(descriptor: usize, lastIndex: f64): void {
  truncate(descriptor, <u64>lastIndex + 1);
}

/** Forgets the entries up to `lastIndex`, which are in the index; their slots stay. */
export function indexPurge(descriptor: usize, lastIndex: f64): void {
  const first = <u64>lastIndex + 1;
  store<u64>(descriptor, first, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const count = load<u32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  if (first === load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX)) {
    store<u32>(descriptor, 0, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
    return;
  }
  const run = <u32>findRun(descriptor, first);
  memory.copy(
    runAt(descriptor, 0),
    runAt(descriptor, run),
    <usize>(count - run) * L.TERM_RUN_BYTES,
  );
  store<u64>(runAt(descriptor, 0), first, L.TERM_RUN_OFFSET_FIRST_INDEX);
  store<u32>(descriptor, count - run, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
}

export function indexTerm(descriptor: usize, index: f64): f64 {
  const wanted = <u64>index;
  if (wanted < load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX)) return 0;
  if (wanted >= load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX)) return 0;
  const run = findRun(descriptor, wanted);
  return run < 0 ? 0 : <f64>load<u64>(runAt(descriptor, run), L.TERM_RUN_OFFSET_TERM);
}

export function indexConflict(descriptor: usize, pointer: usize, length: u32): f64 {
  const end = rangeEnd(pointer, length);
  const indexFirst = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const indexNext = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  const runCount = load<i32>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_RUN_COUNT);
  let run: i32 = -1;
  let runEnd: u64 = 0;
  let term: u64 = 0;
  let block = pointer;
  while (<u64>block < end) {
    const nextBlock = blockEnd(block, end);
    if (nextBlock === 0) return 0;
    const count = load<u32>(block, L.BLOCK_OFFSET_ITEMS);
    let index = load<u64>(block, L.BLOCK_OFFSET_FIRST_INDEX);
    let item = block + L.BLOCK_BYTES;
    for (let i: u32 = 0; i < count; i++) {
      if (index >= indexNext) return 0;
      if (index >= indexFirst) {
        if (index >= runEnd) {
          run = run < 0 ? findRun(descriptor, index) : run + 1;
          runEnd =
            run + 1 < runCount
              ? load<u64>(runAt(descriptor, run + 1), L.TERM_RUN_OFFSET_FIRST_INDEX)
              : indexNext;
          term = load<u64>(runAt(descriptor, run), L.TERM_RUN_OFFSET_TERM);
        }
        if (load<u64>(item, L.ITEM_OFFSET_TERM) !== term) return <f64>index;
      }
      index++;
      item += L.ITEM_BYTES;
    }
    block = <usize>nextBlock;
  }
  return 0;
}

export function indexScan(
  descriptor: usize,
  firstIndex: f64,
  lastIndex: f64,
  maxBytes: f64,
  out: usize,
  maxExtents: u32,
): u32 {
  const indexFirst = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_FIRST_INDEX);
  const indexNext = load<u64>(descriptor, L.INDEX_DESCRIPTOR_OFFSET_NEXT_INDEX);
  let index = <u64>firstIndex;
  const stop = min<u64>(<u64>lastIndex + 1, indexNext);
  if (index < indexFirst || index >= stop) return 0;
  const budget = <u64>maxBytes;
  let bytes: u64 = 0;
  let extents: u32 = 0;
  let extent = out - L.EXTENT_BYTES;
  let items: u32 = 0;
  let payloadLength: u32 = 0;
  let segment: u32 = 0;
  // Where the next entry must stand to belong to the same extent.
  let nextItem: u64 = 0;
  let nextPayload: u64 = 0;
  while (index < stop) {
    const entry = entryAt(descriptor, slotOf(descriptor, index));
    const itemPosition = load<u32>(entry, L.INDEX_ENTRY_OFFSET_ITEM_POSITION);
    const payloadPosition = load<u32>(entry, L.INDEX_ENTRY_OFFSET_PAYLOAD_POSITION);
    const length = load<u32>(entry, L.INDEX_ENTRY_OFFSET_LENGTH);
    const continues =
      extents !== 0 &&
      <u64>itemPosition === nextItem &&
      <u64>payloadPosition === nextPayload &&
      load<u32>(entry, L.INDEX_ENTRY_OFFSET_SEGMENT) === segment;
    bytes += <u64>L.ITEM_BYTES + length;
    if (!continues) bytes += L.BLOCK_BYTES;
    if (bytes > budget && index !== <u64>firstIndex) break;
    if (!continues) {
      if (extents === maxExtents) break;
      if (extents !== 0) finishExtent(extent, items, payloadLength);
      extent += L.EXTENT_BYTES;
      extents++;
      segment = load<u32>(entry, L.INDEX_ENTRY_OFFSET_SEGMENT);
      items = 0;
      payloadLength = 0;
      store<u32>(extent, segment, L.EXTENT_OFFSET_SEGMENT);
      store<f64>(extent, <f64>index, L.EXTENT_OFFSET_FIRST_INDEX);
      store<u32>(extent, itemPosition, L.EXTENT_OFFSET_ITEM_POSITION);
      store<u32>(extent, payloadPosition, L.EXTENT_OFFSET_PAYLOAD_POSITION);
      store<u32>(extent, 0, L.EXTENT_OFFSET_RESERVED);
    }
    items++;
    payloadLength += length;
    nextItem = <u64>itemPosition + L.ITEM_BYTES;
    nextPayload = <u64>payloadPosition + length;
    index++;
  }
  if (extents !== 0) finishExtent(extent, items, payloadLength);
  return extents;
}

function finishExtent(extent: usize, items: u32, payloadLength: u32): void {
  store<u32>(extent, items, L.EXTENT_OFFSET_ITEMS);
  store<u32>(extent, payloadLength, L.EXTENT_OFFSET_PAYLOAD_LENGTH);
}
