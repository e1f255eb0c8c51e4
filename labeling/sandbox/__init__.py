"""The boundary between the product and the code that users write.

`host` is our side, `child` the other, `names` what the other may name. Importing this package loads
none of them: the policy reads the names in the web process, which never runs such code.
"""
