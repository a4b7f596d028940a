//! Datagrams and file descriptors: I/O backends, sockets, pinning, clocks and buffer pools; knows no DNS.
