"""Undeclared sharing: what a scenario's threads share and no schedule point names.

A search permutes what it sees.  While it may end in a proof, the scenario's own functions run with
a call before each access to an attribute, an element, a global or a closure's variable (``rewrite``
makes them so), and ``watch`` looks for two accesses, one of them a write, that nothing orders.
"""
