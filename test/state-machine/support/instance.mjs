import Recorder from './recorder.mjs';

export default new Recorder();
