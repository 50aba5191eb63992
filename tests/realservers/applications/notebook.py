"""The demo, with its sessions in the folder of the server."""

import nocookie.demo

application = nocookie.demo.application("data")
