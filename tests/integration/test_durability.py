"""kill -9 under load: everything that was acknowledged is there afterwards."""
import random
import threading

import harness
import rpc

ROUNDS, CLIENTS = 6, 4


class Client:
    """Puts a counter, appends it, uploads a product at times; notes what was acknowledged."""

    def __init__(self, number):
        self.number = number
        self.param, self.param_acked = 0, 0  # sent, acknowledged
        self.events_acked, self.products = [], {}
        self.acked = 0

    def run(self, daemon, enough):
        try:
            with daemon.connect(daemon.tcp if self.number % 2 else daemon.unix) as c:
                while True:
                    self.step(c)
                    self.acked += 1
                    enough()
        except (rpc.Closed, ConnectionError, BrokenPipeError):
            pass

    def step(self, c):
        n = self.param = self.param + 1
        c.put("a", self.number, b"%d" % n)
        self.param_acked = n
        c.append("a", b"%d:%d" % (self.number, n), code=self.number)
        self.events_acked.append(n)
        if n % 5 == 0:
            name, data = b"c%d" % self.number, b"%d-%d." % (self.number, n) * 700
            self.products[name] = (self.products.get(name, (None,))[-1], data)
            c.upload("a", name, data, replace=True)
            self.products[name] = (data,)


class Durability(harness.Case):
    def check_client(self, c, client):
        if client.param_acked:
            got = int(c.get("a", client.number))
            self.assertIn(got, (client.param_acked, client.param))
            client.param_acked = client.param = got
        shown = [e for e in c.events("a", limit=4096)["events"] if e["code"] == client.number]
        numbers = [int(e["payload"].split(b":")[1]) for e in shown]
        self.assertEqual(numbers, sorted(set(numbers)))
        if numbers:
            kept = [n for n in client.events_acked if n >= numbers[0]]
            self.assertLessEqual(set(kept), set(numbers), "acknowledged events are gone")
            self.assertLessEqual(set(numbers) - set(kept), {client.param})
            client.events_acked = numbers
        for name, versions in client.products.items():
            if versions == (None, versions[-1]):  # never acknowledged: there or not
                reply = c.ask("DataProducts", "Get", {"image": "a", "name": name})
                self.assertIn(reply.code, (rpc.OK, rpc.NOT_FOUND))
                if reply.code:
                    continue
            data = c.product("a", name)
            self.assertIn(data, versions)
            client.products[name] = (data,)

    def test_kill_under_load(self):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        d = self.daemon()
        with d.connect() as c:
            c.create("a", blocks=600, sector_size=4096)
            c.create("calm", blocks=64)
            c.put("calm", 1, b"calm")
        clients = [Client(n) for n in range(CLIENTS)]
        with self.subTest(seed=seed):
            for _ in range(ROUNDS):
                self.one_round(d, clients, rng.randrange(5, 60))
            d.stop()
            seen = harness.dump(d.image_path(1, "a"))
            self.assertEqual((seen["corrupt_param_slots"], seen["corrupt_event_indexes"],
                              [p for p in seen["dps"] if not p["ok"]]), ([], [], []))
            latest = {p["id"]: bytes.fromhex(p["value_hex"]) for p in seen["latest_params"]}
            self.assertEqual(latest, {k.number: b"%d" % k.param for k in clients})

    def one_round(self, d, clients, enough):
        target = sum(k.acked for k in clients) + enough
        reached = threading.Event()

        def count():
            if sum(k.acked for k in clients) >= target:
                reached.set()

        running = [threading.Thread(target=k.run, args=(d, count)) for k in clients]
        for one in running:
            one.start()
        self.assertTrue(reached.wait(harness.WAIT_S))
        d.kill9()
        for one in running:
            one.join()
        d.restart()
        with d.connect() as c:
            for image in c.call("Images", "List")["images"]:
                self.assertEqual(image["state"], 1, image)
            for client in clients:
                self.check_client(c, client)
            self.assertEqual(c.get("calm", 1), b"calm")
            self.assertEqual(c.call("Images", "Check", image="a")["findings"], [])

    def test_images_made_and_deleted_stay_so(self):
        d = self.daemon()
        with d.connect() as c:
            for n in range(6):
                c.create(f"i{n}", blocks=40)
                c.put(f"i{n}", 1, b"%d" % n)
            for n in (1, 4):
                c.call("Images", "Delete", image=f"i{n}")
            d.kill9()
        with d.restart().connect() as c:
            names = [i["name"] for i in c.call("Images", "List")["images"]]
            self.assertEqual(names, [b"i0", b"i2", b"i3", b"i5"])
            self.assertEqual([c.get(f"i{n}", 1) for n in (0, 2, 3, 5)], [b"0", b"2", b"3", b"5"])

    def test_death_in_the_middle_of_many_creates(self):
        d = self.daemon()
        for _ in range(3):
            with d.connect() as c:
                streams = [c.start("Images", "Create", {"image": f"n{n}", "total_blocks": 64})
                           for n in range(30)]
                first = c.wait(streams[0])
                self.assertIn(first.code, (rpc.OK, rpc.EXISTS))
                d.kill9()
            with d.restart().connect() as c:
                images = c.call("Images", "List")["images"]
                self.assertIn(b"n0", [i["name"] for i in images])
                self.assertEqual([i for i in images if i["state"] != 1], [])


if __name__ == "__main__":
    harness.main()
