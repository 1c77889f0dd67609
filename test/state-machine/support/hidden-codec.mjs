import Sum from './own-codec.mjs';

export default Sum;
