import Foundation
import HostSystem
import Synchronization
import TestSupport
import Testing

/// Objects put into a folder: whole, under a name that was free, or not at all.
@Suite struct FolderUploadTests {
    let scratch: ScratchDirectory
    let store: FolderStore
    let stop = StopFlag.bounded()

    init() throws {
        scratch = try ScratchDirectory()
        try Files.makeDirectories(scratch("store"))
        store = FolderStore(folder: scratch("store"))
    }

    static func piece(_ number: Int) -> [UInt8] {
        seededBytes(30_000 + number * 7919 % 90_000, seed: UInt64(number + 1))
    }

    func read(_ key: String) throws -> [UInt8] { try FileReading.bytes(scratch("store/" + key), limit: 64 << 20) }

    func names(_ folder: String = "") throws -> [String] { try Files.names(in: scratch("store/" + folder)) }

    @Test("a small object, under a free name alone, in folders that are made")
    func put() throws {
        try store.put(key: "site/b.manifest", bytes: Array("told".utf8), stop: stop)
        try store.put(key: "empty", bytes: [], stop: stop)
        #expect(try read("site/b.manifest") == Array("told".utf8))
        #expect(try read("empty") == [])
        let status = try #require(try Files.status(scratch("store/site/b.manifest")))
        #expect(status.mode == 0o600 && status.links == 1)
        let conflict = StoreConflict(object: "file://" + scratch("store/site/b.manifest"))
        #expect(throws: conflict) { try store.put(key: "site/b.manifest", bytes: Array("told".utf8), stop: stop) }
        try Files.symlink(target: "nowhere", at: scratch("store/dangling"))
        #expect(throws: StoreConflict.self) { try store.put(key: "dangling", bytes: [1], stop: stop) }
        #expect(try names("site") == ["b.manifest"])
        #expect(try names() == ["dangling", "empty", "site"])
    }

    @Test("what cannot be looked at is missing from no list; what is no object is")
    func list() throws {
        try store.put(key: "a", bytes: [1], stop: stop)
        try store.put(key: "b.manifest", bytes: [1], stop: stop)
        try Files.symlink(target: "/etc/hostname", at: scratch("store/out"))
        try Files.symlink(target: "nowhere", at: scratch("store/dangling"))
        #expect(mkfifo(scratch("store/fifo"), 0o600) == 0)
        let store = store
        #expect(try store.list(prefix: "", stop: stop).map(\.key) == ["a", "b.manifest"])
        try Files.changeMode(scratch("store"), 0o755)
        try Files.changeMode(scratch("store/a"), 0o644)
        #expect(throws: HostError("openat2", scratch("store/b.manifest"), errno: EACCES)) {
            try WithoutRights.run { try store.list(prefix: "", stop: .bounded()) }
        }
        #expect(try WithoutRights.run { try store.list(prefix: "a", stop: .bounded()) }.map(\.key) == ["a"])
    }

    @Test(
        "parts in any order, from one thread and from several",
        arguments: [
            ([[1, 2, 3]], 3), ([[3, 2, 1]], 3), ([[2, 5, 1, 4, 3]], 5), ([[1, 3, 5, 7], [2, 4, 6, 8]], 8),
            ([Array((1...40).reversed()), Array(41...80), Array((81...120).reversed())], 120),
        ] as [([[Int]], Int)])
    func order(threads: [[Int]], count: Int) throws {
        let upload = try store.beginUpload(key: "deep/er/x.tar.zst", stop: stop)
        try AtOnce.run(threads) { numbers in
            for number in numbers { try upload.send(part: number, bytes: Self.piece(number)) }
        }
        #expect(try store.list(prefix: "", stop: stop).isEmpty)
        let object = try upload.complete()
        let expected = (1...count).flatMap { Self.piece($0) }
        #expect(try read("deep/er/x.tar.zst") == expected)
        #expect(object == (try store.stat(key: "deep/er/x.tar.zst", stop: stop)))
        #expect(try store.open(object, memory: ByteCount(1 << 20), stop: stop) { _ in }.readAll() == expected)
        upload.abort()
        #expect(try names("deep/er") == ["x.tar.zst"])
    }

    @Test("a part may come twice; a missing one, one after the end and a bad number are refused")
    func rules() throws {
        let key = "file://" + scratch("store/x")
        let upload = try store.beginUpload(key: "x", stop: stop)
        #expect(throws: UploadError.missingPart(object: key, part: 1)) { try upload.complete() }
        try upload.send(part: 2, bytes: [9])
        try upload.send(part: 2, bytes: [2, 2])
        #expect(throws: UploadError.missingPart(object: key, part: 1)) { try upload.complete() }
        #expect(throws: UploadError.outsideRules(object: key, part: 0, length: 1)) {
            try upload.send(part: 0, bytes: [1])
        }
        try upload.send(part: 1, bytes: [7])
        try upload.send(part: 1, bytes: [1])
        #expect(throws: UploadError.otherLength(object: key, part: 1)) { try upload.send(part: 1, bytes: [1, 1]) }
        _ = try upload.complete()
        #expect(try read("x") == [1, 2, 2])
        #expect(throws: UploadError.closed(object: key)) { try upload.send(part: 3, bytes: [3]) }
        #expect(throws: UploadError.closed(object: key)) { try upload.complete() }
        #expect(try names() == ["x"])
    }

    @Test("of two writers one wins, and the loser changes nothing and leaves nothing")
    func conflict() throws {
        let uploads = try (0..<2).map { _ in try store.beginUpload(key: "x", stop: stop) }
        for (number, upload) in uploads.enumerated() { try upload.send(part: 1, bytes: [UInt8(number)]) }
        let conflicts = Mutex(0)
        try AtOnce.run(uploads) { upload in
            do {
                _ = try upload.complete()
            } catch is StoreConflict {
                conflicts.withLock { $0 += 1 }
                upload.abort()
            }
        }
        #expect(conflicts.withLock { $0 } == 1)
        #expect(try names() == ["x"])
        let winner = try read("x")
        #expect(throws: StoreConflict.self) { try store.beginUpload(key: "x", stop: stop) }
        #expect(try read("x") == winner)
    }

    @Test("an upload that is given up or forgotten leaves nothing, whatever threads still do")
    func abort() throws {
        let upload = try store.beginUpload(key: "x", stop: stop)
        try upload.send(part: 1, bytes: Self.piece(1))
        try upload.send(part: 3, bytes: Self.piece(3))
        try AtOnce.run([0, 1, 2]) { turn in
            if turn == 0 { return upload.abort() }
            do {
                for number in 0..<200 { try upload.send(part: 2 * number + turn + 3, bytes: Self.piece(number)) }
            } catch is UploadError {
            }
        }
        #expect(throws: UploadError.self) { try upload.complete() }
        var forgotten: (any ObjectUpload)? = try store.beginUpload(key: "y", stop: stop)
        try forgotten?.send(part: 2, bytes: [1])
        forgotten = nil
        #expect(try names() == [])
    }

    @Test("ranges of objects that are there, among parts of one's own")
    func copy() throws {
        let old = Self.piece(50) + Self.piece(51)
        try store.put(key: "old", bytes: old, stop: stop)
        let object = try #require(try store.stat(key: "old", stop: stop))
        let upload = try store.beginUpload(key: "new", stop: stop)
        try upload.copy(part: 3, from: object, range: 0..<Int64(old.count))
        try upload.copy(part: 1, from: object, range: 1000..<41_234)
        try upload.send(part: 2, bytes: Self.piece(2))
        let past = CopySourceGone(object: store.location + "old")
        #expect(throws: past) { try upload.copy(part: 4, from: object, range: 0..<Int64(old.count) + 1) }
        _ = try upload.complete()
        #expect(try read("new") == Array(old[1000..<41_234]) + Self.piece(2) + old)
        try scratch.write("store/old", Self.piece(50) + Self.piece(52))
        let next = try store.beginUpload(key: "next", stop: stop)
        #expect(throws: past) { try next.copy(part: 1, from: object, range: 0..<10) }
        try store.remove(key: "old", stop: stop)
        #expect(throws: past) { try next.copy(part: 1, from: object, range: 0..<10) }
        // The failed part is missing, however often it was tried.
        #expect(throws: UploadError.self) { try next.complete() }
    }

    @Test(
        "nothing is written outside of the folder, nor under a name that is none",
        arguments: [
            "up/x", "out/x", "../x", "a/../../x", "/x", "x/", "a//b", ".", "a/.", "", "nul\0l", "file/x", "loop/x",
        ])
    func outside(key: String) throws {
        try Files.makeDirectories(scratch("outside"))
        try Files.symlink(target: "..", at: scratch("store/up"))
        try Files.symlink(target: scratch("outside"), at: scratch("store/out"))
        try Files.symlink(target: "loop", at: scratch("store/loop"))
        try scratch.write("store/file", "told")
        let before = try names()
        #expect(throws: (any Error).self) { try store.put(key: key, bytes: [1], stop: stop) }
        #expect(throws: (any Error).self) { try store.beginUpload(key: key, stop: stop) }
        try? store.remove(key: key, stop: stop)
        #expect(try names() == before)
        #expect(try Files.names(in: scratch.path) == ["outside", "store"])
        #expect(try Files.names(in: scratch("outside")) == [])
    }

    @Test("a link that stays inside is followed; a folder that is not there is not made")
    func inside() throws {
        try Files.makeDirectories(scratch("store/real"))
        try Files.symlink(target: "real", at: scratch("store/site"))
        try store.put(key: "site/x", bytes: [1], stop: stop)
        #expect(try read("real/x") == [1])
        #expect(throws: FolderStore.Refusal.absent(scratch("none/"))) {
            try FolderStore(folder: scratch("none")).put(key: "x", bytes: [1], stop: stop)
        }
        #expect(!Files.exists(scratch("none")))
    }

    @Test("removed once, absent after; nothing else goes")
    func remove() throws {
        try store.put(key: "a/x", bytes: [1], stop: stop)
        try store.put(key: "a/y", bytes: [1], stop: stop)
        try store.remove(key: "a/x", stop: stop)
        try store.remove(key: "a/x", stop: stop)
        try store.remove(key: "b/x", stop: stop)
        #expect(try names("a") == ["y"])
        #expect(throws: HostError.self) { try store.remove(key: "a", stop: stop) }
    }

    @Test("what a killed run left is never listed, and goes when it is a day old")
    func leftovers() throws {
        let random = "0123456789abcdef"
        for (name, age) in [(".x.\(random).part", 90_000), (".y.\(random).part", 100), (".z.part", 90_000)] {
            let path = try scratch.write("store/" + name, "told")
            let time = timeval(tv_sec: Int(Host.now) - age, tv_usec: 0)
            #expect(utimes(path, [time, time]) == 0)
        }
        #expect(try store.list(prefix: "", stop: stop).map(\.key) == [".z.part"])
        _ = try store.beginUpload(key: "x", stop: stop)
        #expect(try names() == [".y.\(random).part", ".z.part"])
    }

    @Test("a stop ends an upload")
    func stopped() throws {
        let flag = StopFlag()
        let upload = try store.beginUpload(key: "x", stop: flag)
        flag.raise(signal: SIGTERM)
        #expect(throws: StopReason.signal(SIGTERM)) { try upload.send(part: 1, bytes: [1]) }
        #expect(throws: StopReason.signal(SIGTERM)) { try upload.complete() }
        upload.abort()
        #expect(try names() == [])
    }

    @Test(
        "a full disk is told as such and leaves nothing; a copy between two file systems is one all the same",
        .enabled(if: Host.isSuperuser, "mounts a small tmpfs"))
    func full() throws {
        let small = scratch("small")
        try Files.makeDirectories(small)
        #expect(mount("none", small, "tmpfs", 0, "size=1m") == 0)
        defer { umount2(small, CInt(MNT_DETACH)) }
        let store = FolderStore(folder: small)
        let upload = try store.beginUpload(key: "x", stop: stop)
        try upload.send(part: 1, bytes: seededBytes(700_000))
        for number in [2, 3] {
            let error = try #require(throws: HostError.self) {
                try upload.send(part: number, bytes: seededBytes(700_000))
            }
            #expect(error.isOutOfRoom)
        }
        #expect(throws: UploadError.self) { try upload.complete() }
        upload.abort()
        #expect(try Files.names(in: small) == [])
        let error = try #require(throws: HostError.self) {
            try store.put(key: "y", bytes: seededBytes(1_100_000), stop: stop)
        }
        #expect(error.isOutOfRoom)
        #expect(try Files.names(in: small) == [])
        // A link to another file system is one that leads out, unless a mount puts it below the folder.
        try store.put(key: "z", bytes: Self.piece(1), stop: stop)
        let above = FolderStore(folder: scratch.path)
        let source = try #require(try above.stat(key: "small/z", stop: stop))
        let copy = try above.beginUpload(key: "store/z", stop: stop)
        try copy.copy(part: 1, from: source, range: 5..<10_000)
        _ = try copy.complete()
        #expect(try read("z") == Array(Self.piece(1)[5..<10_000]))
    }
}
