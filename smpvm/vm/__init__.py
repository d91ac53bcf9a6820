"""DragonFly's sys/vm: pages, queues, objects, maps, faults, the page-out daemon, pagers."""
