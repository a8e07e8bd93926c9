"""Calling the real adb client, for the phones of `adbd.py`."""

import pathlib
import subprocess
import time

from daqu_tf.devices import AndroidDevice

ADB = pathlib.Path(__file__).parents[2] / ".adb/adb"
FOLDER = "data/local/tmp/daqu_tf"


def adb(*arguments, check=True):
    return subprocess.run([ADB, *arguments], check=check, capture_output=True, text=True, timeout=60).stdout


def wait_for(phone, state):
    end = time.monotonic() + 30
    while f"{phone.serial}\t{state}" not in adb("devices"):
        assert time.monotonic() < end
        time.sleep(0.05)


def device(phone, program, **settings):
    return AndroidDevice(phone.serial, program, adb=ADB, **settings)
