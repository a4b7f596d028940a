-- dnsdist: a balancer before one server, with its packet cache, which is what answers here. One listener.
setLocal('@ADDRESS@:@PORT@', { reusePort = true, tcpListenQueueSize = 1024, maxInFlight = 1024 })
setACL({ '127.0.0.0/8' })
-- Taken as up without asking: health checks would go upstream all the time. Some sockets for the
-- misses, as its guide to performance has it.
newServer({ address = '@UPSTREAM@:@UPSTREAM_PORT@', sockets = 8, useClientSubnet = false }):setUp()
setServerPolicy(firstAvailable)
-- It counts entries: a name is one over UDP and another over TCP. With one listener there is nobody to share
-- shards with. Measured: 124 to 139 of 50,000 names did not stay even with twice the room; of 10,000 all do.
getPool(''):setCache(newPacketCache(@CACHE_NAMES@, { maxTTL = 86400, numberOfShards = 1 }))
-- recvmmsg(2) and sendmmsg(2) with as many datagrams as the echo and we have.
setUDPMultipleMessagesVectorSize(64)
-- More misses at a time than the test ever has.
setMaxUDPOutstanding(65535)
-- No connection of the test waits for another.
setMaxTCPClientThreads(1)
setMaxTCPConnectionsPerClient(0)
setMaxTCPQueriesPerConnection(0)
setMaxTCPConnectionDuration(0)
setMaxTCPQueuedConnections(1024)
-- What it notes of recent queries can't be turned off in this version, but made small.
setRingBuffersSize(100, 1)
-- Nobody is asked whether there is a newer version, and nothing is told while it is measured.
setSecurityPollSuffix('')
setVerboseHealthChecks(false)
