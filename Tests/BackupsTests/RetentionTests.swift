import HostSystem
import TestSupport
import Testing

@testable import Backups

struct RetentionTests {
    private static func time(_ stamp: String) throws -> Int64 { try #require(NameStamp(in: stamp)?.seconds) }

    struct Table: CustomTestStringConvertible, Sendable {
        let policy: String
        /// Newest first; those that stay are marked.
        let times: [(stamp: String, stays: Bool)]
        var testDescription: String { policy + " \(times.count)" }

        init(_ policy: String, _ text: String) {
            self.policy = policy
            times = text.split(separator: " ").map { word in
                word.hasPrefix("+") ? (String(word.dropFirst()), true) : (String(word), false)
            }
        }
    }

    static let tables = [
        Table("keep-last=2", "+20261126T030000Z +20261125T030000Z 20261124T030000Z"),
        Table("keep-last=1", "+20261126T030000Z 20261126T020000Z"),
        Table("keep-last=9", "+20261126T030000Z +20261125T030000Z"),
        Table(
            "keep-hourly=2",
            "+20261126T035959Z 20261126T030000Z +20261126T025959Z 20261126T020000Z 20261126T015959Z"),
        // Hours without a backup do not count.
        Table("keep-hourly=2", "+20261126T030000Z +20261101T010000Z 20261031T010000Z"),
        Table(
            "keep-daily=3",
            "+20261126T235959Z 20261126T000000Z +20261125T120000Z 20261125T110000Z +20261101T000000Z 20261031T235959Z"),
        // 2026-11-23 is a Monday.
        Table(
            "keep-weekly=2", "+20261126T000000Z 20261123T000000Z +20261122T235959Z 20261116T000000Z 20261115T235959Z"),
        // ISO week 53 of 2026 goes from Monday, 2026-12-28, to Sunday, 2027-01-03.
        Table(
            "keep-weekly=2", "+20270103T235959Z 20270101T000000Z 20261231T000000Z 20261228T000000Z +20261227T235959Z"),
        Table("keep-weekly=1", "+20270104T000000Z 20270103T235959Z"),
        Table("keep-monthly=2", "+20270101T000000Z +20261231T235959Z 20261201T000000Z 20261130T235959Z"),
        Table(
            "keep-monthly=3", "+20280301T000000Z +20280229T235959Z 20280201T000000Z +20280131T000000Z 20271231T000000Z"),
        Table("keep-yearly=2", "+20270101T000000Z +20261231T235959Z 20260101T000000Z 20251231T235959Z"),
        Table(
            "keep-daily=1,keep-weekly=2,keep-yearly=2",
            "+20261126T030000Z 20261125T030000Z +20261122T030000Z 20261121T030000Z 20261110T030000Z +20251231T030000Z 20250101T000000Z"
        ),
        Table("keep-last=1, keep-monthly = 1", "+20261126T030000Z 20261125T030000Z"),
    ]

    @Test("tables made by hand", arguments: Self.tables)
    func byHand(_ table: Table) throws {
        let policy = try RetentionPolicy(parsing: table.policy)
        let kept = policy.kept(try table.times.map { try Self.time($0.stamp) })
        #expect(kept == table.times.map(\.stays))
    }

    @Test(
        "what is no policy",
        arguments: [
            "", ",", "keep-daily", "keep-daily=", "keep-daily=0", "keep-daily=-1", "keep-daily=x",
            "daily=7", "keep-fortnightly=1", "keep-daily=1,", "keep-daily=1,keep-daily=2", "keep-daily=1=2", "keep-=1",
            "keep-daily=99999999999999999999", "Keep-daily=1", "keep-daily=100001",
        ])
    func invalid(_ text: String) {
        #expect(throws: RetentionPolicy.Invalid.self) { try RetentionPolicy(parsing: text) }
    }

    private static let day: Int64 = 86400

    private func item(
        _ key: String, _ state: BackupInventory.Item.State, _ time: Int64, app: String = "", environment: String = "",
        modified: Int64? = nil
    ) -> BackupInventory.Item {
        var header: BackupHeader?
        if state == .complete {
            header = BackupHeader()
            header?.app = app
            header?.environment = environment
        }
        return BackupInventory.Item(
            object: StoredObject(key: key, size: 1, modified: modified), state: state, time: time, header: header)
    }

    @Test("applications and environments each on their own; what is not amorce's, and what is being made, stays")
    func groups() throws {
        let now: Int64 = 1_795_000_000
        let day = Self.day
        let items = [
            item("a1", .complete, now - 10 * day, app: "a"), item("a2", .complete, now - 9 * day, app: "a"),
            item("a3", .complete, now - 40 * day, app: "a", environment: "staging"),
            item("b1", .complete, now - 50 * day, app: "b"), item("b2", .complete, now - 60 * day, app: "b"),
            item("old.tar", .archive, now - 900 * day),
            item("i1", .incomplete, now - day), item("i2", .incomplete, now - 3 * day),
            // Begun long ago and finished just now, by the store's clock.
            item("i3", .incomplete, now - 5 * day, modified: now - 60),
            item("i4", .incomplete, now - 60, modified: now - 3 * day),
            item("l1", .leftover, now - 2 * day), item("l2", .leftover, now - 2 * day - 1),
        ]
        let plan = PruneBackups.plan(items, policy: try RetentionPolicy(parsing: "keep-last=1"), now: now)
        #expect(plan.removed.map(\.object.key).sorted() == ["a1", "b2", "i2", "i4", "l2"])
        #expect(plan.kept.map(\.object.key).sorted() == ["a2", "a3", "b1", "i1", "i3", "l1", "old.tar"])
        #expect(plan.removed.count + plan.kept.count == items.count)
        let times = plan.kept.compactMap(\.time)
        #expect(times == times.sorted(by: >))
    }

    @Test("nothing at all")
    func none() throws {
        #expect(try RetentionPolicy(parsing: "keep-daily=1").kept([]) == [])
        #expect(PruneBackups.plan([], policy: try RetentionPolicy(parsing: "keep-daily=1"), now: 0).removed.isEmpty)
    }

    @Test("from the store to the store")
    func store() throws {
        var site = try FramedSite(MemoryStore(modified: 1_795_000_000))
        try site.scratch.write("site/f", "1")
        var made: [String] = []
        for _ in 0..<3 {
            made.append(try site.create().key)
            site.now += Self.day
        }
        site.app = "another"
        made.append(try site.create().key)
        site.store["p/20200101T000000Z.tar.zst"] = [1]
        site.store["p/20261101T000000Z.framed.tar.zst"] = [1]
        site.store["p/20261102T000000Z.framed.tar.zst.manifest"] = [1]
        site.store["p/notes.txt"] = [1]
        site.store["p/deeper/20261102T000000Z.framed.tar.zst"] = [1]
        let inventory = BackupInventory(store: site.store)
        let items = try inventory.items(prefix: "p/", now: site.now, stop: .bounded())
        #expect(items.filter { $0.state == .complete }.map(\.object.key) == made.reversed())
        #expect(items.count == 7 && items.count { $0.state == .incomplete } == 1)
        #expect(items.count { $0.state == .leftover } == 1 && items.count { $0.state == .archive } == 1)
        let plan = PruneBackups.plan(items, policy: try RetentionPolicy(parsing: "keep-daily=2"), now: site.now)
        let kept = Set(site.store.keys)
        try PruneBackups(store: site.store).remove(plan, stop: .bounded())
        let gone = [made[0], "p/20261101T000000Z.framed.tar.zst"]
        #expect(
            kept.subtracting(site.store.keys)
                == Set(gone + [BackupKey.manifest(of: made[0]), "p/20261102T000000Z.framed.tar.zst.manifest"]))
        _ = try site.restore(made[1])
    }

    @Test("what a wrong clock dated more than a day ahead stays, and has nothing removed")
    func ahead() throws {
        let now: Int64 = 1_795_000_000
        let items = [
            item("2099", .complete, now + 20_000 * Self.day), item("soon", .complete, now + Self.day + 1),
            item("new", .complete, now + Self.day), item("old", .complete, now - Self.day),
        ]
        let plan = PruneBackups.plan(items, policy: try RetentionPolicy(parsing: "keep-last=1"), now: now)
        #expect(plan.kept.map(\.object.key) == ["2099", "soon", "new"] && plan.removed.map(\.object.key) == ["old"])
    }

    /// A store from which a key goes when it is about to be read, or that cannot be read at all.
    private struct FailingStore: ObjectStore {
        struct Unreachable: Error {}

        let store: MemoryStore
        let key: String
        let isGone: Bool

        var location: String { store.location }
        func list(prefix: String, stop: StopFlag) throws -> [StoredObject] {
            try store.list(prefix: prefix, stop: stop)
        }
        func stat(key: String, stop: StopFlag) throws -> StoredObject? { try store.stat(key: key, stop: stop) }
        func read(key: String, limit: Int, stop: StopFlag) throws -> [UInt8]? {
            try store.read(key: key, limit: limit, stop: stop)
        }
        func open(
            _ object: StoredObject, from offset: Int64, memory: ByteCount, stop: StopFlag,
            progress: @escaping ProgressHandler
        ) throws -> any ByteSource {
            if object.key == key {
                if isGone { store[key] = nil }
                throw Unreachable()
            }
            return try store.open(object, from: offset, memory: memory, stop: stop, progress: progress)
        }
    }

    @Test("a manifest that cannot be used spoils its own line alone, and its backup stays")
    func damaged() throws {
        var site = try FramedSite(MemoryStore(modified: 1_795_000_000))
        try site.scratch.write("site/f", "1")
        var made: [String] = []
        for _ in 0..<6 {
            made.append(try site.create().key)
            site.now += Self.day
        }
        func edit(_ key: String, _ old: String, _ new: String) throws {
            let text = String(decoding: try site.manifest(key), as: UTF8.self)
            #expect(text.contains(old))
            site.store[BackupKey.manifest(of: key)] = try ManifestTesting.pack(text.replacing(old, with: new))
        }
        site.store[BackupKey.manifest(of: made[1])] = [1, 2, 3]
        try edit(made[2], "amorce-backup\t1\n", "amorce-backup\t2\n")
        try edit(made[3], "time\t2026", "time\t2126")
        let gone = BackupKey.manifest(of: made[4])
        let inventory = BackupInventory(store: FailingStore(store: site.store, key: gone, isGone: true))
        let items = try inventory.items(prefix: "p/", now: site.now, stop: .bounded())
        #expect(items.map(\.state.name) == ["complete"] + Array(repeating: "damaged", count: 4) + ["complete"])
        let reasons = items.compactMap { item -> String? in
            if case .damaged(let reason) = item.state { return reason }
            return nil
        }
        #expect(reasons.count == 4 && reasons[0].contains("removed while") && reasons[1].contains("time"))
        #expect(reasons[2].contains("format 2"))
        let plan = PruneBackups.plan(items, policy: try RetentionPolicy(parsing: "keep-last=1"), now: site.now)
        #expect(plan.removed.map(\.object.key) == [made[0]])
        // Not so where it is the store that fails.
        let failing = FailingStore(store: site.store, key: BackupKey.manifest(of: made[5]), isGone: false)
        #expect(throws: FailingStore.Unreachable.self) {
            try BackupInventory(store: failing).items(prefix: "p/", now: site.now, stop: .bounded())
        }
    }
}
