"""Generated situations: small programs over what processes and the kernel do, explored for defects.

program       a program as a value: a start state and threads of operations; its text
operations    the table of operations (memory, files, processes, daemons)
scenario      a program as a scenario, so that explore, replay and shrinking work on it
interactions  what an execution exercised: who wrote where, who read it from another thread where
generate      programs from a seed; mutation and crossing
corpus        the programs that showed something new, on disk
search        all pairs first, then feedback
"""

from typing import Final

from smpvm.kern.cname import KEEP

FRAMES: Final = KEEP
