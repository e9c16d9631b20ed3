"""Which objects must exist, in which version and under which lock; and how to put that right.

`needs` lists what live snapshots and the ledger need, `versions` judges every version of a name,
`protection` says until when locks last, `heal` removes what hides the right versions. It works
with public keys. Judgement over a whole repository, with a report, belongs in `vault.audit`.
"""
