function __crrl_tell(value) {
  const { inspect } = __crrl_builtin('util');
  if (Object.prototype.toString.call(value) === '[object Error]') return `${value.name}(${inspect(value.message)})`;
  return inspect(value, { depth: 6, breakLength: Infinity, compact: true, maxArrayLength: 200, sorted: false });
}
function __crrl_see(line, name, value) {
  const places = (globalThis.__crrl_places = globalThis.__crrl_places || { next: 0 });
  const told = { place: places.next++, line, name, names: [], args: [], after: [], seen: true };
  __crrl_builtin('fs').appendFileSync('TRACE', JSON.stringify({ ...told, returned: __crrl_tell(value) }) + '\n');
  return value;
}
function __crrl_builtin(name) {
  return process.getBuiltinModule ? process.getBuiltinModule(name) : require(name);
}
function __crrl_call(line, name, names, locals, own, callee, args) {
  const called = typeof callee === 'string' ? own[callee] : callee;
  if (typeof called !== 'function' || /\[native code\]\s*}$/.test(Function.prototype.toString.call(called))) {
    return typeof callee === 'string' ? own[callee](...args) : callee(...args);
  }
  const told = { line, name, names: args.map((_, at) => names[at] ?? null), args: args.map(__crrl_tell) };
  told.locals = {};
  for (const [local, value] of Object.entries(locals ? locals() : {})) {
    const plain = value === null || Array.isArray(value) || value?.constructor === Object || typeof value !== 'object';
    told.locals[local] = typeof value === 'function' ? value.name || '<object>' : plain ? __crrl_tell(value) : '<object>';
  }
  const places = (globalThis.__crrl_places = globalThis.__crrl_places || { next: 0 });
  const place = places.next++;
  const write = (what) => {
    const after = args.map(__crrl_tell);
    __crrl_builtin('fs').appendFileSync('TRACE', JSON.stringify({ place, ...told, after, ...what }) + '\n');
  };
  const failed = (error) => write({ error: [error?.name ?? typeof error, String(error?.message ?? error).split('\n')[0]] });
  let value;
  try {
    value = typeof callee === 'string' ? own[callee](...args) : callee(...args);
  } catch (error) {
    failed(error);
    throw error;
  }
  if (value !== null && typeof value === 'object' && typeof value.then === 'function') {
    value.then((settled) => write({ returned: __crrl_tell(settled) }), failed);
  } else {
    write({ returned: value !== undefined && value === own ? '<itself>' : __crrl_tell(value) });
  }
  return value;
}
