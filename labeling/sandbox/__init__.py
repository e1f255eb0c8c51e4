"""The boundary between the product and the code that users write.

`host` is our side; `columns` and `direct` prepare what it sends. `child` is the other side, `locks`
what that gives up before it reads the code, `names` what the code may name. Importing this package
loads none of them: the policy reads the names in the web process, which never runs such code.
"""
