"""Files that older Beakers wrote, recorded: by what, the id, the file.

Python 2 cannot be had everywhere, nor run beside what the tests need.
"""

from base64 import b64decode
from typing import NamedTuple


class File(NamedTuple):
    python: str
    beaker: str
    what: str
    id: str
    text: str

    @property
    def data(self):
        return b64decode(self.text)


FILES = [
    File(
        "2.7.18",
        "1.11.0",
        "plain",
        "0fa25cf20fd74f8e9038f771fd77b56b",
        "KGRwMQpTJ3Nlc3Npb24nCnAyCihkcDMKUydfZG9tYWluJwpwNApOc1MnY2FydCcKcDUKKGxwNgpJ"
        "MQphRjIuNQphTmEoZHA3ClMnbicKSTAxCnNhc1MndXNlcicKcDgKUydhbm4nCnA5CnNTJ19hY2Nl"
        "c3NlZF90aW1lJwpwMTAKRjE3OTU5MDA5MzEuODc2MzQzCnNTJ19jcmVhdGlvbl90aW1lJwpwMTEK"
        "RjE3OTU5MDA5MzEuODc2MzQzCnNTJ19wYXRoJwpwMTIKUycvJwpzcy4=",
    ),
    File(
        "2.7.18",
        "1.11.0",
        "bytes",
        "af75f30352f3429c9be8d3619d284859",
        "KGRwMQpTJ3Nlc3Npb24nCnAyCihkcDMKUydfZG9tYWluJwpwNApOc1MnY2FydCcKcDUKKGxwNgpJ"
        "MQphRjIuNQphTmEoZHA3ClMnbicKSTAxCnNhc1MndXNlcicKcDgKUydab1x4YzNceGFiJwpwOQpz"
        "UydfYWNjZXNzZWRfdGltZScKcDEwCkYxNzk1OTAwOTMyLjAxODQ4NgpzUydfY3JlYXRpb25fdGlt"
        "ZScKcDExCkYxNzk1OTAwOTMyLjAxODQ4NgpzUydfcGF0aCcKcDEyClMnLycKc3Mu",
    ),
    File(
        "2.7.18",
        "1.11.0",
        "objects",
        "b1e711dce1664b8e8778d7ab3a814224",
        "KGRwMQpTJ3Nlc3Npb24nCnAyCihkcDMKUydfZG9tYWluJwpwNApOc1MnY2FydCcKcDUKKGxwNgpJ"
        "MQphRjIuNQphTmEoZHA3ClMnbicKSTAxCnNhc1MndXNlcicKcDgKUydhbm4nCnA5CnNTJ19hY2Nl"
        "c3NlZF90aW1lJwpwMTAKRjE3OTU5MDA5MzIuMTk2ODAzMQpzUydkYXknCnAxMQpjZGF0ZXRpbWUK"
        "ZGF0ZQpwMTIKKFMnXHgwN1x4ZTRceDAxXHgwMicKdFJwMTMKc1MnX2NyZWF0aW9uX3RpbWUnCnAx"
        "NApGMTc5NTkwMDkzMi4xOTY4MDMxCnNTJ19wYXRoJwpwMTUKUycvJwpzcy4=",
    ),
    File(
        "2.7.18",
        "1.5.4",
        "plain",
        "fe6c1b6a91e5664e9e3ce0d9d82ed4d5",
        "KGRwMQpTJ3Nlc3Npb24nCnAyCihkcDMKUydfY3JlYXRpb25fdGltZScKcDQKRjE3OTU5MDA3MDEu"
        "NTc1MDQ4OQpzUydfYWNjZXNzZWRfdGltZScKcDUKRjE3OTU5MDA3MDEuNTc1MDQ4OQpzUyd1c2Vy"
        "JwpwNgpTJ2FubicKcDcKc1MnY2FydCcKcDgKKGxwOQpJMQphRjIuNQphTmEoZHAxMApTJ24nCkkw"
        "MQpzYXNzLg==",
    ),
    File(
        "2.7.18",
        "1.12.0",
        "plain",
        "add1e8701ae144a18cd64c91caf35bed",
        "KGRwMQpTJ3Nlc3Npb24nCnAyClMnZ0FKOWNRRW9WUWRmWkc5dFlXbHVjUUpPVlFSallYSjBjUU5k"
        "Y1FRb1N3RkhRQVFBQUFBQUFBQk9mWEVGVlFGdWlITmxWUVIxYzJWeWNRWlZBMkZ1Ym5FSFZRNWZZ"
        "V05qWlhOelpXUmZkR2x0WlhFSVIwSGF3dEZLVWpOUlZRNWZZM0psWVhScGIyNWZkR2x0WlhFSlIw"
        "SGF3dEZLVWpOUlZRVmZjR0YwYUhFS1ZRRXZkUzQ9JwpwMwpzLg==",
    ),
    File(
        "2.7.18",
        "1.5.4",
        "bytes",
        "355ebf62f18b2cc762881ed83e74c263",
        "KGRwMQpTJ3Nlc3Npb24nCnAyCihkcDMKUydfY3JlYXRpb25fdGltZScKcDQKRjE3OTU5MDA3MDEu"
        "OTI2ODQzOQpzUydfYWNjZXNzZWRfdGltZScKcDUKRjE3OTU5MDA3MDEuOTI2ODQzOQpzUyd1c2Vy"
        "JwpwNgpTJ1pvXHhjM1x4YWInCnA3CnNTJ2NhcnQnCnA4CihscDkKSTEKYUYyLjUKYU5hKGRwMTAK"
        "UyduJwpJMDEKc2Fzcy4=",
    ),
    File(
        "2.7.18",
        "1.12.0",
        "bytes",
        "6f4b8bfdd5f84cad8999dc31408d987c",
        "KGRwMQpTJ3Nlc3Npb24nCnAyClMnZ0FKOWNRRW9WUWRmWkc5dFlXbHVjUUpPVlFSallYSjBjUU5k"
        "Y1FRb1N3RkhRQVFBQUFBQUFBQk9mWEVGVlFGdWlITmxWUVIxYzJWeWNRWlZCRnB2dzZ0eEIxVU9Y"
        "MkZqWTJWemMyVmtYM1JwYldWeENFZEIyc0xSZ1VPWHIxVU9YMk55WldGMGFXOXVYM1JwYldWeENV"
        "ZEIyc0xSZ1VPWHIxVUZYM0JoZEdoeENsVUJMM1V1JwpwMwpzLg==",
    ),
    File(
        "3.11.7",
        "1.11.0",
        "plain",
        "abaaf7df6fa74cc7b37a4bbeaee49c4e",
        "gASVigAAAAAAAAB9lIwHc2Vzc2lvbpR9lCiMB19kb21haW6UTowFX3BhdGiUjAEvlIwOX2FjY2Vz"
        "c2VkX3RpbWWUR0HawtGBX4/SjA5fY3JlYXRpb25fdGltZZRHQdrC0YFfj9KMBHVzZXKUjARab8Or"
        "lIwEY2FydJRdlChLAUdABAAAAAAAAE59lIwBbpSIc2V1cy4=",
    ),
    File(
        "3.11.7",
        "1.11.0",
        "json",
        "00627119351143cbb49ba910523b4731",
        "gASVigAAAAAAAAB9lIwHc2Vzc2lvbpR9lCiMB19kb21haW6UTowFX3BhdGiUjAEvlIwOX2FjY2Vz"
        "c2VkX3RpbWWUR0HawtGBetugjA5fY3JlYXRpb25fdGltZZRHQdrC0YF626CMBHVzZXKUjARab8Or"
        "lIwEY2FydJRdlChLAUdABAAAAAAAAE59lIwBbpSIc2V1cy4=",
    ),
    File(
        "3.11.7",
        "1.11.0",
        "objects",
        "5cf5981123774d55a38f91c41439e9fe",
        "gASVrwAAAAAAAAB9lIwHc2Vzc2lvbpR9lCiMB19kb21haW6UTowFX3BhdGiUjAEvlIwOX2FjY2Vz"
        "c2VkX3RpbWWUR0HawtFIDCPQjA5fY3JlYXRpb25fdGltZZRHQdrC0UgMI9CMBHVzZXKUjARab8Or"
        "lIwEY2FydJRdlChLAUdABAAAAAAAAE59lIwBbpSIc2WMA2RheZSMCGRhdGV0aW1llIwEZGF0ZZST"
        "lEMEB+QBApSFlFKUdXMu",
    ),
]
