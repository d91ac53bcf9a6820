"""DragonFly's sys/kern: atomics, locks, sleep and wakeup, threads, processes, vnodes."""
