import Recorder from './recorder.mjs';

export default async () => new Recorder();
