-- kresd: one process, which is its unit of scaling. It caches in a file of LMDB; the manual wants that in
-- memory, so @DIR@ is on a tmpfs where there is one with room.
net.ipv6 = false
net.listen('@ADDRESS@', @PORT@, { kind = 'dns' })
-- Enough for every name: measured 64 to 84 bytes a name in pages of LMDB (`n123456.bench.example` A), and its
-- collector, which its packagers run beside it and so do we, begins to remove at 80 % of the size.
-- Without that it would start over with an empty cache whenever it is full.
cache.open(@CACHE_BYTES@, 'lmdb://@DIR@/cache')
-- Nobody here validates.
trust_anchors.remove('.')
-- Modules that are loaded by default and need the above, ask by themselves or watch the clock. One that
-- this version doesn't have is no error.
for _, name in ipairs({
    'ta_update', 'ta_signal_query', 'ta_sentinel', 'priming', 'detect_time_skew', 'detect_time_jump', 'watchdog',
}) do
    pcall(modules.unload, name)
end
-- Nothing is told while it is measured.
log_level('crit')
-- No pipelined query waits for an earlier one of its connection.
net.tcp_pipeline(1024)
modules.load('policy')
policy.add(policy.all(policy.FORWARD({ '@UPSTREAM@@@UPSTREAM_PORT@' })))
