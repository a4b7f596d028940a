//! DNS bytes: query facts, response views, names, EDNS, cache keys and answer templates.
