"""What the registry knows of images outlives the daemon: who they are, what cursors count."""
import os
import pathlib
import re
import resource
import shutil
import sqlite3
import subprocess
import uuid

import harness
import rpc
from faults import Faults

ROOT = pathlib.Path(os.environ.get("SPB_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
READY, READ_ONLY, DAMAGED, UNAVAILABLE, QUARANTINED = range(1, 6)
PENDING = 1  # an outcome


class Registry(harness.Case):
    def setUp(self):
        super().setUp()
        self.d = self.daemon()
        self.c = self.connect(self.d)

    def restart(self):
        self.c = self.connect(self.d.restart())

    def image(self, name="a"):
        return self.c.call("Images", "Get", image=name)["image"]

    def state(self, name="a"):
        image = self.image(name)
        return image["state"], image["reason"].decode()

    def path(self, name="a"):
        return self.d.image_path(1, name)

    def rows(self):
        db = sqlite3.connect(f"file:{self.d.data_dir}/audit.db?mode=ro", uri=True)
        try:
            return {(tenant, name): uuid for tenant, name, uuid in
                    db.execute("SELECT tenant, name, uuid FROM images")}
        finally:
            db.close()


class Cursors(Registry):
    def setUp(self):
        super().setUp()
        self.c.create("a", blocks=64)
        for n in range(5):
            self.c.append("a", b"event-%d" % n)
        self.cursor = self.c.events("a")["cursor"]

    def follow(self):
        """What came after the cursor, and whether it was taken for another life's."""
        shown = self.c.events("a", cursor=self.cursor)
        self.cursor = shown["cursor"]
        return [e["payload"] for e in shown["events"]], shown["reset"]

    def test_over_restarts_and_deaths(self):
        for n in range(4):
            self.c.append("a", b"more%d" % n)
            if n % 2:
                self.d.kill9()
            else:
                self.d.stop()
            self.restart()
            self.assertEqual(self.follow(), ([b"more%d" % n], False))
            self.assertEqual(self.follow(), ([], False))

    def test_a_repair_of_events_begins_anew(self):
        self.d.stop()
        data = bytearray(self.path().read_bytes())
        data[data.index(b"event-2")] ^= 0xff
        self.path().write_bytes(data)
        self.restart()
        self.assertEqual(self.follow(), ([], False))
        self.assertTrue(self.c.call("Images", "Check", image="a", repair=True)["repaired"])
        events, reset = self.follow()
        self.assertEqual((len(events), reset), (5, True))
        self.assertEqual(self.follow(), ([], False))
        self.d.stop()
        self.restart()
        self.assertEqual(self.follow(), ([], False))

    def test_an_older_copy_begins_anew(self):
        self.d.stop()
        old = self.path().read_bytes()
        self.restart()
        self.c.append("a", b"lost")
        self.assertEqual(self.follow(), ([b"lost"], False))
        self.d.stop()
        self.path().write_bytes(old)
        self.restart()
        self.assertIn("event=events-behind", self.d.log())
        self.c.append("a", b"another")
        events, reset = self.follow()
        self.assertEqual((events[-1], len(events), reset), (b"another", 6, True))
        self.d.stop()
        self.restart()
        self.assertEqual(self.follow(), ([], False))
        self.assertEqual(self.d.log().count("event=events-behind"), 1)

    def test_an_append_that_never_happened_moves_nothing(self):
        """Its intent named a pointer that the image never had."""
        self.d.stop()
        faults = Faults(self.dir)
        self.d.env = faults.environment()
        self.restart()
        faults.kill("write", "images/1/a.img")
        with self.assertRaises(rpc.Closed):
            self.c.append("a", b"never")
        self.d.wait(-9)
        faults.clear()
        self.restart()
        self.assertNotIn("events-behind", self.d.log())
        self.assertEqual(self.follow(), ([], False))
        self.c.append("a", b"next")
        self.assertEqual(self.follow(), ([b"next"], False))

    def test_reopening_after_a_fault_keeps_them(self):
        self.d.stop()
        faults = Faults(self.dir)
        self.d.env = faults.environment()
        self.restart()
        faults.fail("flush", "images/1/a.img")
        self.refused(rpc.INTERNAL, self.c, "Events", "Append", {
            "image": "a", "events": [{"payload": b"perhaps"}]})
        faults.clear()
        self.c.call("Images", "Reopen", image="a")
        events, reset = self.follow()
        self.assertFalse(reset)
        self.assertIn(events, ([], [b"perhaps"]))


class Quarantine(Registry):
    def setUp(self):
        super().setUp()
        self.c.create("a", blocks=64)
        self.c.put("a", 1, b"known")

    def refuses(self, name="a"):
        for service, method, fields in (
                ("Params", "Put", {"id": 1, "value": b""}), ("Params", "Get", {"id": 1}),
                ("Events", "List", {}), ("Images", "Inspect", {}), ("Images", "Check", {}),
                ("Images", "Defrag", {}), ("DataProducts", "List", {})):
            reply = self.refused(rpc.PRECONDITION, self.c, service, method,
                                 dict(fields, image=name))
            self.assertEqual(reply.reason, "IMAGE_QUARANTINED", method)

    def replaced(self, *words):
        """Another image is put in the place of a, while nobody serves it."""
        known = self.image()
        self.d.stop()
        self.path().unlink()
        harness.run_cli("init", "--file", self.path(), *words)
        other = harness.run_cli("inspect", "--file", self.path(), "--json").json
        self.restart()
        return known, other

    def test_another_uuid(self):
        known, other = self.replaced("--blocks", 64)
        state, reason = self.state()
        self.assertEqual(state, QUARANTINED)
        shown = self.image()
        self.assertEqual((shown["uuid"], shown["total_blocks"], shown["sector_size"]),
                         (known["uuid"], 64, 512), "the registry's knowledge is shown")
        plain = reason.replace("-", "")
        self.assertIn(other["uuid"], plain)
        self.assertIn(known["uuid"].hex(), plain)
        self.refuses()
        reply = self.refused(rpc.PRECONDITION, self.c, "Images", "Reopen", {"image": "a"})
        self.assertEqual(reply.reason, "IMAGE_QUARANTINED")
        self.d.stop()
        self.restart()
        self.assertEqual(self.state()[0], QUARANTINED)
        endpoint = ["--endpoint", self.d.unix]
        listed = harness.run_cli("image", "list", *endpoint).text
        self.assertIn("quarantined", listed)
        harness.run_cli("image", "reopen", "a", *endpoint, code=harness.FAILED)
        taken = harness.run_cli("image", "reopen", "a", "--accept-identity", "--json",
                                *endpoint).json
        self.assertEqual((taken["state"], taken["uuid"]), ("ready", other["uuid"]))
        self.refused(rpc.NOT_FOUND, self.c, "Params", "Get", {"image": "a", "id": 1})
        self.c.put("a", 1, b"new")
        self.d.stop()
        self.restart()
        self.assertEqual(self.state(), (READY, ""))

    def test_another_size(self):
        for words in (("--blocks", 128), ("--blocks", 64, "--sector-size", 1024)):
            with self.subTest(words):
                uuid = self.image()["uuid"].hex()
                self.replaced(*words, "--uuid", uuid)
                state, reason = self.state()
                self.assertEqual(state, QUARANTINED)
                self.assertIn("blocks of", reason)
                self.c.call("Images", "Reopen", image="a", accept_identity=True)
                self.assertEqual(self.state(), (READY, ""))

    def test_the_known_file_comes_back(self):
        aside = self.dir / "aside"
        self.d.stop()
        shutil.copy(self.path(), aside)
        self.restart()
        self.replaced("--blocks", 64)
        self.assertEqual(self.state()[0], QUARANTINED)
        shutil.copy(aside, self.path())
        self.c.call("Images", "Reopen", image="a")
        self.assertEqual(self.state(), (READY, ""))
        self.assertEqual(self.c.get("a", 1), b"known")

    def test_a_quarantined_image_can_be_deleted(self):
        known, other = self.replaced("--blocks", 64)
        found = bytes.fromhex(other["uuid"])
        reply = self.refused(rpc.PRECONDITION, self.c, "Images", "Delete", {"image": "a"})
        self.assertIn(other["uuid"], reply.message.replace("-", ""))
        self.assertIn(known["uuid"].hex(), reply.message.replace("-", ""))
        self.refused(rpc.PRECONDITION, self.c, "Images", "Delete",
                     {"image": "a", "uuid": known["uuid"]})
        self.refused(rpc.INVALID, self.c, "Images", "Delete", {"image": "a", "uuid": found[1:]})
        self.assertTrue(self.path().exists())
        self.c.call("Images", "Delete", image="a", uuid=found)
        self.assertFalse(self.path().exists())
        record = [r for r in self.c.call("Audit", "List")["records"]
                  if r["method"] == b"Images.Delete"][-1]
        self.assertIn(other["uuid"], record["before"].decode().replace("-", ""))
        self.c.create("a", blocks=33)
        self.assertEqual(self.state(), (READY, ""))

    def test_damaged_or_cut_short_it_goes_by_its_name(self):
        for damage in (bytes(512), None):
            with self.subTest(damage=damage):
                uuid_text = self.image()["uuid"].hex()
                self.d.stop()
                with open(self.path(), "r+b") as f:
                    if damage:
                        f.write(damage)
                    else:
                        f.truncate(100)
                self.restart()
                self.assertIn(self.state()[0], (DAMAGED, UNAVAILABLE))
                self.c.call("Images", "Delete", image="a")
                self.assertFalse(self.path().exists())
                record = [r for r in self.c.call("Audit", "List")["records"]
                          if r["method"] == b"Images.Delete"][0]
                self.assertIn(f"uuid {uuid_text}", record["before"].decode().replace("-", ""))
                self.assertIn(b"64 blocks of 512", record["before"])
                self.c.create("a", blocks=64)

    def test_another_images_file_is_not_deleted(self):
        """What lies under the name of one is the only file of another."""
        self.c.create("b")
        self.c.put("b", 1, b"of b")
        endpoint = ["--endpoint", self.d.unix]
        self.d.stop()
        self.path().unlink()
        self.path("b").rename(self.path())
        self.restart()
        self.assertEqual(self.state()[0], QUARANTINED)
        said = harness.run_cli("image", "delete", "a", *endpoint, code=harness.FAILED).err
        self.assertIn("name its uuid", said)
        self.path().rename(self.path("b"))
        self.c.call("Images", "Delete", image="a")
        self.d.stop()
        self.restart()
        self.assertEqual(self.c.get("b", 1), b"of b")
        shown = harness.run_cli("image", "show", "b", "--json", *endpoint).json
        harness.run_cli("image", "delete", "b", "--uuid", "0" * 32, *endpoint, code=harness.FAILED)
        harness.run_cli("image", "delete", "b", "--uuid", "?", *endpoint, code=harness.USAGE)
        harness.run_cli("image", "delete", "b", "--uuid", shown["uuid"], *endpoint)
        self.assertFalse(self.path("b").exists())

    def test_deleting_what_is_in_quarantine_is_settled(self):
        _, other = self.replaced("--blocks", 64)
        request = {"image": "a", "uuid": bytes.fromhex(other["uuid"]),
                   "request_id": str(uuid.uuid4())}
        self.d.stop()
        faults = Faults(self.dir)
        self.addCleanup(faults.release_all)
        self.d.env.update(faults.environment())
        self.restart()
        self.c.create("b")  # the WAL has begun: the next flush is that of the intent
        self.eventually(lambda: not self.c.call("Audit", "List", outcome=PENDING)["records"],
                        "an outcome is never written")
        hold = faults.hold("flush", "audit.db")
        self.c.start("Images", "Delete", request)
        hold.wait()
        self.d.kill9()
        hold.release()
        self.restart()
        self.assertEqual(self.state()[0], QUARANTINED)
        self.c.call("Images", "Delete", **request)
        self.assertFalse(self.path().exists())

    def test_a_copy_beside_its_original(self):
        self.d.stop()
        for name in ("0copy", "zcopy"):  # listed before it and after it
            shutil.copy(self.path(), self.path(name))
        self.restart()
        self.assertEqual(self.state(), (READY, ""))
        for name in ("0copy", "zcopy"):
            self.assertEqual(self.state(name), (QUARANTINED, "has the uuid of image 1/a"))
            self.refuses(name)
            self.assertIn(f"event=uuid-taken tenant=1 name={name} by=1/a", self.d.log())
            reply = self.c.ask("Images", "Reopen", {"image": name, "accept_identity": True})
            self.assertEqual(reply.reason, "IMAGE_QUARANTINED")
        self.c.put("a", 1, b"original")
        self.d.stop()
        self.restart()
        self.assertEqual(self.state(), (READY, ""))
        self.c.call("Images", "Delete", image="a")
        self.c.call("Images", "Reopen", image="zcopy")
        self.assertEqual(self.c.get("zcopy", 1), b"known")
        self.d.stop()
        self.restart()
        self.assertEqual(self.state("zcopy"), (READY, ""))
        self.assertEqual(self.state("0copy"), (QUARANTINED, "has the uuid of image 1/zcopy"))

    def test_a_uuid_that_is_taken(self):
        uuid = self.image()["uuid"]
        reply = self.refused(rpc.EXISTS, self.c, "Images", "Create", {
            "image": "b", "total_blocks": 64, "uuid": uuid})
        self.assertIn("1/a", reply.message)
        self.assertFalse(self.path("b").exists())
        self.c.create("7/b", uuid=uuid)  # tenants hear nothing of each other
        self.c.call("Images", "Delete", image="a")
        self.c.create("b", uuid=uuid)

    def test_records_of_accepting(self):
        self.replaced("--blocks", 64)
        self.c.call("Images", "Reopen", image="a", accept_identity=True)
        self.c.call("Images", "Reopen", image="a")  # it is ready: nothing is done
        records = [r for r in self.c.call("Audit", "List")["records"]
                   if r["method"] == b"Images.Reopen"]
        self.assertEqual([(r["before"], r["outcome"]) for r in records], [(b"quarantined", 2)])


class Files(Registry):
    def test_rows_follow_the_folder(self):
        for name in ("a", "b"):
            self.c.create(name)
        self.d.stop()
        self.path("a").unlink()
        self.path("b").rename(self.path("moved"))
        harness.run_cli("init", "--file", self.path("fresh"), "--blocks", 64)
        before = self.rows()
        self.assertEqual(set(before), {(1, "a"), (1, "b")})
        self.restart()
        after = self.rows()
        self.assertEqual(set(after), {(1, "moved"), (1, "fresh")})
        self.assertEqual(after[1, "moved"], before[1, "b"])
        for name in ("moved", "fresh"):
            self.assertEqual(self.state(name), (READY, ""))
        self.assertEqual(self.d.log().count("event=image-vanished"), 2)
        self.d.kill9()
        self.restart()
        self.assertEqual(self.rows(), after)

    def test_only_the_file_that_is_served_is_deleted(self):
        self.c.create("a")
        self.path().rename(self.dir / "aside")
        harness.run_cli("init", "--file", self.path(), "--blocks", 64)
        reply = self.refused(rpc.PRECONDITION, self.c, "Images", "Delete", {"image": "a"})
        self.assertEqual(reply.reason, "WRONG_STATE")
        self.assertTrue(self.path().exists())
        # Reopening looks at what is there, though the image was ready.
        self.assertEqual(self.c.ask("Images", "Reopen", {"image": "a"}).reason,
                         "IMAGE_QUARANTINED")
        self.c.call("Images", "Reopen", image="a", accept_identity=True)
        self.c.call("Images", "Delete", image="a")
        self.assertFalse(self.path().exists())

    def test_a_file_that_is_gone_can_be_deleted(self):
        self.c.create("a")
        self.path().unlink()
        self.c.call("Images", "Delete", image="a")
        self.c.create("a")

    def test_without_descriptors(self):
        """Images that could not be opened say why, and are opened once there are some."""
        count, limit = 60, 96
        for n in range(count):
            self.c.create(f"i{n:02}", blocks=33)
            self.c.put(f"i{n:02}", 1, b"%d" % n)
        self.d.stop()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard[1]))
        try:
            prlimit = shutil.which("prlimit")
            if prlimit is None:
                self.skipTest("no prlimit")
            self.d.start([prlimit, f"--nofile={limit}:{limit}", *self.d.command()])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, hard)
        self.c = self.connect(self.d)
        images = self.c.call("Images", "List")["images"]
        self.assertEqual(len(images), count)
        shut = [i for i in images if i["state"] != READY]
        self.assertTrue(0 < len(shut) < count, len(shut))
        for image in shut:
            self.assertEqual(image["state"], UNAVAILABLE)
            self.assertIn(os.strerror(24), image["reason"].decode())
        one = shut[0]["name"].decode()
        for image in [i for i in images if i["state"] == READY][:8]:
            self.c.call("Images", "Delete", image=image["name"].decode())
        self.c.call("Images", "Reopen", image=one)
        self.assertEqual(self.c.get(one, 1), b"%d" % int(one[1:]))
        self.d.stop()
        self.restart()
        self.assertEqual({i["state"] for i in self.c.call("Images", "List")["images"]}, {READY})

class Database(Registry):
    """audit.db is lost, or damaged; OPERATIONS.md says what to do."""

    def setUp(self):
        super().setUp()
        self.c.create("a", blocks=64)
        self.c.put("a", 7, b"kept")
        self.c.append("a", b"one")
        self.cursor = self.c.events("a")["cursor"]
        self.db = self.d.data_dir / "audit.db"

    def stop(self):
        self.d.stop()
        for name in ("audit.db-wal", "audit.db-shm"):
            self.assertFalse((self.d.data_dir / name).exists(), name)

    def expect_all_there(self):
        self.assertEqual(self.state()[0], READY)
        self.assertEqual(self.c.call("Params", "Get", image="a", id=7)["param"]["value"], b"kept")
        self.assertEqual(self.c.call("Images", "Check", image="a")["findings"], [])

    def test_lost_or_emptied_it_is_told(self):
        self.assertNotIn("registry-is-new", self.d.log())
        for empty in (False, True):
            self.stop()
            told = self.d.log().count("registry-is-new images=1")
            self.db.unlink()
            if empty:
                self.db.touch()
            self.restart()
            self.expect_all_there()
            self.assertEqual(self.d.log().count("registry-is-new images=1"), told + 1)
        self.stop()
        self.restart()
        self.assertEqual(self.d.log().count("registry-is-new"), 2)

    def test_lost_images_are_found(self):
        self.stop()
        self.db.unlink()
        self.restart()
        self.expect_all_there()
        self.assertEqual(set(self.rows()), {(1, "a")})
        shown = self.c.events("a", cursor=self.cursor)
        self.assertEqual([e["payload"] for e in shown["events"]], [b"one"])
        self.assertTrue(shown["reset"])
        self.c.put("a", 7, b"new")
        self.c.append("a", b"two")
        self.assertEqual(len(self.c.events("a")["events"]), 2)

    def test_damaged_it_does_not_start_and_what_is_recovered_serves(self):
        if shutil.which("sqlite3") is None:
            self.skipTest("no sqlite3")
        self.stop()
        data = bytearray(self.db.read_bytes())
        page = int.from_bytes(data[16:18], "big")
        victim = self.page_of("targets")  # its rows are needed by nobody to serve
        data[victim * page:(victim + 1) * page] = b"\xa5" * page
        self.db.write_bytes(data)
        code, log = self.d.refuses_to_start()
        self.assertEqual(code, 1, log)
        self.assertIn("A damaged audit.db", log)
        self.assertEqual(self.db.read_bytes(), bytes(data))
        self.recover()
        self.restart()
        self.expect_all_there()
        shown = self.c.events("a", cursor=self.cursor)
        self.assertEqual((shown["events"], shown["reset"]), ([], False))

    def recover(self):
        """As OPERATIONS.md has it."""
        text = (ROOT / "docs/OPERATIONS.md").read_text()
        commands = re.search(r"```sh\n( *cp -a D/audit.*?)```", text, re.DOTALL).group(1)
        aside = self.d.data_dir.parent / "aside"
        aside.mkdir()
        commands = commands.replace("D/", f"{self.d.data_dir}/")
        commands = commands.replace("/somewhere/else", str(aside))
        subprocess.run(["sh", "-ec", commands], check=True)
        for old in self.d.data_dir.glob("audit.db*"):
            old.unlink()
        (self.d.data_dir / "audit.new").rename(self.db)

    def page_of(self, table):
        db = sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)
        try:
            return db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?",
                              (table,)).fetchone()[0] - 1
        finally:
            db.close()

    def test_old_changes_are_forgotten_where_that_is_asked_for(self):
        self.stop()
        db = sqlite3.connect(self.db)
        db.execute("UPDATE groups SET time_us = time_us - 3 * 86400 * 1000000")
        db.commit()
        db.close()
        self.d.args = ["--limit", "audit_keep_days=2"]
        self.restart()
        self.c.put("a", 8, b"new")

        def methods():
            return [row["method"] for row in self.c.call("Audit", "List")["records"]]

        self.eventually(lambda: b"Images.Create" not in methods(), "old changes stay")
        self.expect_all_there()


if __name__ == "__main__":
    harness.main()
