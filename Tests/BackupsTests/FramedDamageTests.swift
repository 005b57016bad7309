import TestSupport
import Testing

@testable import Backups
@testable import HostSystem

/// Backups that are damaged, or made to do harm: refused, and nothing outside the directory is touched.
struct FramedDamageTests {
    let site: FramedSite

    init() throws {
        site = try FramedSite()
        try site.scratch.write("outside", "untouched")
        try site.scratch.write("out/outside", "untouched")
    }

    private func expectOutsideUntouched(_ sourceLocation: SourceLocation = #_sourceLocation) throws {
        let names = try Files.names(in: site.scratch.path) + Files.names(in: site.scratch("out"))
        #expect(names == ["out", "outside", "site", "outside", "restored"], sourceLocation: sourceLocation)
        for name in ["outside", "out/outside"] {
            #expect(
                try FileReading.text(site.scratch(name), limit: 100) == "untouched", sourceLocation: sourceLocation)
        }
    }

    /// A small backup of two frames of files, of the same size.
    private func small() throws -> (key: String, object: [UInt8], frames: [ManifestTesting.Contents.Frame]) {
        var random = SeededGenerator(1)
        try site.tree.write(Array("a".utf8), random.bytes(300))
        try site.tree.write(Array("b.jpg".utf8), random.bytes(300))
        try site.tree.makeSymlink(Array("l".utf8), to: Array("a".utf8))
        let key = try site.create().key
        let contents = try ManifestTesting.Contents(try #require(site.store[BackupKey.manifest(of: key)]))
        return (key, try #require(site.store[key]), contents.frames)
    }

    private func expectRefused(_ key: String, _ comment: Comment, sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(throws: (any Error).self, comment, sourceLocation: sourceLocation) { try site.verify(key) }
        #expect(throws: (any Error).self, comment, sourceLocation: sourceLocation) { try site.restore(key) }
    }

    @Test("every byte of the object, and every place where it may end")
    func object() throws {
        let (key, object, frames) = try small()
        #expect(frames.count == 3)
        for position in object.indices {
            var damaged = object
            damaged[position] ^= UInt8(1 << (position % 8))
            site.store[key] = damaged
            #expect(throws: RestoreError.self, "byte \(position)") { try site.verify(key) }
            // The last frame is tar's alone.
            if position < frames[2].offset {
                #expect(throws: RestoreError.self, "byte \(position)") { try site.restore(key) }
            }
        }
        for end in object.indices where end % 7 == 0 || frames.contains(where: { Int($0.offset) == end }) {
            site.store[key] = Array(object[..<end])
            expectRefused(key, "cut at \(end)")
        }
        site.store[key] = object + [0]
        expectRefused(key, "one byte more")
        try expectOutsideUntouched()
    }

    @Test("frames that change places, or are another backup's")
    func swapped() throws {
        let (key, object, frames) = try small()
        let (first, second) = (Int(frames[1].offset), Int(frames[2].offset))
        site.store[key] = Array(object[first..<second] + object[..<first] + object[second...])
        expectRefused(key, "swapped")
        // The same file with another content of the same size, and its frame in place of the first.
        var random = SeededGenerator(2)
        var other = site
        other.now += 60
        try other.tree.write(Array("a".utf8), random.bytes(300))
        let made = try other.create(full: true)
        let foreign = try #require(site.store[made.key])
        let end = Int(
            try ManifestTesting.Contents(try #require(site.store[BackupKey.manifest(of: made.key)])).frames[1].offset)
        if end == first {
            site.store[key] = Array(foreign[..<end] + object[first...])
            expectRefused(key, "another backup's frame")
        }
        site.store[key] = object
        site.store[BackupKey.manifest(of: key)] = site.store[BackupKey.manifest(of: made.key)]
        expectRefused(key, "another backup's manifest")
        site.store[BackupKey.manifest(of: key)] = nil
        expectRefused(key, "no manifest")
        try expectOutsideUntouched()
    }

    @Test("every byte of the manifest")
    func manifest() throws {
        let (key, _, _) = try small()
        let name = BackupKey.manifest(of: key)
        let manifest = try #require(site.store[name])
        let whole = try site.restore(key).nodes()
        for position in manifest.indices {
            site.store[name]?[position] ^= UInt8(1 << (position % 8))
            if let restored = try? site.restore(key) {
                #expect(RawTree.differences(whole, try restored.nodes()) == [], "byte \(position)")
            }
            site.store[name] = manifest
        }
        try expectOutsideUntouched()
    }

    struct Attack: CustomTestStringConvertible, Sendable {
        let testDescription: String
        /// Whether verify finds it too; what depends on the tree that is made shows only then.
        let isVerified: Bool
        let build: @Sendable (inout ForgedBackup) -> Void

        init(_ name: String, verified: Bool = true, _ build: @escaping @Sendable (inout ForgedBackup) -> Void) {
            testDescription = name
            isVerified = verified
            self.build = build
        }
    }

    private static func name(_ text: String) -> RawTree.Name { Array(text.utf8) }

    private static func link(_ path: String, _ target: String) -> FrameExtraction.Last {
        .symlink(path: name(path), target: name(target), modified: 0)
    }

    private static func directory(_ path: String) -> FrameExtraction.Last {
        .directory(path: name(path), mode: 0o755, modified: 0)
    }

    private static func edited(_ name: String, verified: Bool = true, _ old: String, _ new: String) -> Attack {
        Attack(name, verified: verified) { $0.edit = { $0.replacing(old, with: new) } }
    }

    /// The first frame's line, with another value of one field.
    private static func edited(_ name: String, field: Int, as value: String) -> Attack {
        Attack(name) {
            $0.edit = { text in
                var fields = text.split(separator: "\t", maxSplits: 6).map(String.init)
                fields[field] = value
                return fields.joined(separator: "\t")
            }
        }
    }

    static let attacks: [Attack] =
        ["..", "../outside", "a/../../outside", "/tmp/amorce-attack", "a//b", "a/", "./a", "a/.", ".", "/", "a/.."]
        .flatMap { path in
            [
                Attack("a file \(path)") { $0.frames.append([.init(path)]) },
                Attack("a directory \(path)") { $0.last = [directory(path)] },
                Attack("a symlink \(path)") { $0.last = [link(path, "good")] },
                Attack("a hard link \(path)") { $0.last = [.hardLink(path: name(path), target: name("good"))] },
                Attack("a hard link to \(path)") { $0.last = [.hardLink(path: name("h"), target: name(path))] },
            ]
        } + [
            Attack("an empty name") { $0.frames.append([.init("")]) },
            Attack("a long name") { $0.frames.append([.init(String(repeating: "n", count: 256))]) },
            Attack("a NUL") { $0.frames.append([.init([0x61, 0])]) },
            Attack("a NUL in a target") { $0.last = [.symlink(path: [0x6c], target: [0x2e, 0x2e, 0], modified: 0)] },
            Attack("a symlink out") { $0.last = [link("l", "../outside")] },
            Attack("a symlink out from below") { $0.last = [link("a/l", "../../outside")] },
            Attack("an absolute symlink") { $0.last = [link("l", "/etc/passwd")] },
            Attack("a chain of symlinks that leads out", verified: false) {
                $0.last = [link("d/e", ".."), link("out", "d/e/../outside")]
            },
            Attack("a directory through a symlink", verified: false) { $0.last = [link("l", "."), directory("l/d")] },
            Attack("a link through a symlink", verified: false) { $0.last = [link("l", "."), link("l/m", "x")] },
            Attack("a hard link through a symlink", verified: false) {
                $0.last = [link("l", "."), .hardLink(path: name("l/h"), target: name("good"))]
            },
            Attack("a hard link to what lies behind a symlink", verified: false) {
                $0.last = [link("l", "."), .hardLink(path: name("h"), target: name("l/good"))]
            },
            Attack("a hard link to a symlink", verified: false) {
                $0.last = [link("l", "good"), .hardLink(path: name("h"), target: name("l"))]
            },
            Attack("a hard link to nothing", verified: false) {
                $0.last = [.hardLink(path: name("h"), target: name("no"))]
            },
            Attack("a hard link to itself", verified: false) {
                $0.last = [.hardLink(path: name("good"), target: name("good"))]
            },
            Attack("a file as a directory", verified: false) { $0.frames.append([.init("good/b")]) },
            Attack("a directory over a file", verified: false) { $0.last = [directory("good")] },
            Attack("a symlink over a file", verified: false) { $0.last = [link("good", "x")] },
            Attack("a hard link over a file", verified: false) {
                $0.frames.append([.init("b")])
                $0.last = [.hardLink(path: name("good"), target: name("b"))]
            },
            Attack("a name twice in a frame", verified: false) { $0.frames.append([.init("b"), .init("b", "other")]) },
            Attack("a name twice in two frames", verified: false) {
                $0.frames += [[.init("b")], [.init("b", "other")]]
            },
            Attack("a file in pieces twice", verified: false) {
                for _ in 0..<2 { $0.frames += [[.init("b", "xx", size: 4)], [.init("b", "yy", offset: 2, size: 4)]] }
            },
            Attack("a missing piece") {
                $0.frames += [[.init("b", "xx", size: 6)], [.init("b", "yy", offset: 4, size: 6)]]
            },
            Attack("the last piece is missing") { $0.frames += [[.init("b", "xx", size: 4)]] },
            Attack("the first piece is missing") { $0.frames += [[.init("b", "yy", offset: 2, size: 4)]] },
            Attack("pieces that overlap, of the right sum") {
                $0.frames += [[.init("b", "xxx", size: 6)], [.init("b", "yyy", offset: 2, size: 6)]]
            },
            Attack("a piece twice") {
                $0.frames += [
                    [.init("b", "xx", size: 4)], [.init("b", "yy", offset: 2, size: 4)],
                    [.init("b", "yy", offset: 2, size: 4)],
                ]
            },
            Attack("pieces that tell of several sizes") {
                $0.frames += [[.init("b", "xx", size: 4)], [.init("b", "yy", offset: 2, size: 5)]]
            },
            Attack("bytes outside the frame") { $0.frames[0][0].shift = 10_000 },
            Attack("counts that no frame has") { $0.frames[0][0].size = 1 << 60 },
            edited("bytes that begin outside of anything", "\t512\tgood", "\t1152921504606846976\tgood"),
            edited("a size of 2^60", "\t8\t512\t", "\t1152921504606846976\t512\t"),
            edited("a negative size", "\t8\t512\t", "\t-8\t512\t"),
            edited("a negative start", "\t8\t512\t", "\t8\t-512\t"),
            edited("a frame that unpacks to a TiB", field: 3, as: "\(1 << 40)"),
            edited("a frame that unpacks to more than is said", field: 3, as: "600"),
            edited("a frame of 2^60 bytes", field: 2, as: "\(1 << 60)"),
            edited("a frame of 2^60 files", field: 5, as: "\(1 << 60)"),
            Attack("more bytes than there are") { $0.editHeader = { $0.bytes += 1 } },
            Attack("more files than there are") { $0.editHeader = { $0.files += 1 } },
            Attack("more of everything than any disk has", verified: false) { $0.editHeader = { $0.bytes = .max } },
            Attack("an object of another size") { $0.editHeader = { $0.size += 1 } },
        ]

    @Test("hostile manifests", arguments: attacks)
    func hostile(_ attack: Attack) throws {
        var forged = ForgedBackup()
        attack.build(&forged)
        try forged.put(into: site.store)
        #expect(throws: RestoreError.self) { try site.restore(ForgedBackup.key) }
        if attack.isVerified { #expect(throws: RestoreError.self) { try site.verify(ForgedBackup.key) } }
        try expectOutsideUntouched()
        #expect(!Files.exists("/tmp/amorce-attack"))
    }

    @Test("what a harmless one of the same making gives")
    func harmless() throws {
        var forged = ForgedBackup()
        forged.frames = [
            [.init("good"), .init("d/f", "")], [.init("b", "xx", size: 4)], [.init("b", "yy", offset: 2, size: 4)],
        ]
        forged.last = [
            Self.link("l", "good"), .hardLink(path: Self.name("h"), target: Self.name("b")), Self.directory("d"),
        ]
        try forged.put(into: site.store)
        #expect(try site.verify(ForgedBackup.key).files == 3)
        let restored = try site.restore(ForgedBackup.key)
        #expect(try restored.bytes(Self.name("b")) == Array("xxyy".utf8) && restored.nodes().count == 6)
        // And of a name that comes again the dead one is passed over.
        forged.frames[0][0].isDead = true
        forged.frames.append([.init("good", "newer")])
        try forged.put(into: site.store)
        _ = try site.verify(ForgedBackup.key)
        #expect(try site.restore(ForgedBackup.key).bytes(Self.name("good")) == Array("newer".utf8))
        try expectOutsideUntouched()
    }

    @Test("links and directories of the tar that the manifest does not describe")
    func otherLast() throws {
        var forged = ForgedBackup()
        let long = String(repeating: "n", count: 150)
        let last = [
            Self.link("l", "good"), Self.link(long, long), .hardLink(path: Self.name("h"), target: Self.name("good")),
            .hardLink(path: Self.name("h" + long), target: Self.name("good")), Self.directory("d"),
            Self.directory("d/e"),
        ]
        forged.last = last
        try forged.put(into: site.store)
        #expect(try site.verify(ForgedBackup.key).links == 4 && site.verify(ForgedBackup.key).directories == 2)
        let whole = ForgedBackup.headers(last)
        func expectFound(_ headers: [UInt8], _ comment: Comment) throws {
            forged.headers = headers
            try forged.put(into: site.store)
            #expect(throws: RestoreError.self, comment) { try site.verify(ForgedBackup.key) }
            // A restore has no need of them.
            _ = try site.restore(ForgedBackup.key)
        }
        for index in last.indices {
            var others = last
            others.remove(at: index)
            try expectFound(ForgedBackup.headers(others), "without \(index)")
            try expectFound(ForgedBackup.headers(last + [last[index]]), "\(index) twice")
            others.append(Self.link("x", "good"))
            try expectFound(ForgedBackup.headers(others), "another than \(index)")
        }
        var other = last
        other[4] = .directory(path: Self.name("d"), mode: 0o700, modified: 0)
        try expectFound(ForgedBackup.headers(other), "another mode")
        other[4] = .directory(path: Self.name("d"), mode: 0o755, modified: 1_000_000_000)
        try expectFound(ForgedBackup.headers(other), "another time")
        try expectFound(Array(whole.dropLast(TarMember.endMark.count)), "no end mark")
        try expectFound(Array(whole.dropLast(512)), "half an end mark")
        try expectFound(Array(whole.dropLast(1)), "a cut block")
        try expectFound(whole + [UInt8](repeating: 0, count: 512), "a block more")
        try expectFound(TarMember.endMark + whole, "an end mark before them")
        try expectFound([], "nothing at all")
        // The sum of a hard link's header.
        let start = try #require(stride(from: 0, to: whole.count, by: 512).first { whole[$0 + 156] == 0x31 })
        var damaged = whole
        damaged[start + 101] ^= 1
        try expectFound(damaged, "a wrong sum")
    }

    @Test("a .sha256 beside it is not looked at, and no leading components are dropped")
    func optionsOfOtherArchives() throws {
        let (key, _, _) = try small()
        site.store[key + ".sha256"] = Array("no checksum".utf8)
        let object = try #require(try site.store.stat(key: key, stop: .bounded()))
        let restore = RestoreArchive(store: site.store, log: .silent)
        #expect(try restore.checksumBeside(object, stop: .bounded()) == nil)
        try Files.makeDirectories(site.scratch("out/restored"))
        do {
            _ = try restore.restore(
                object, into: site.scratch("out/restored"), options: .init(stripComponents: 1), stop: .bounded(),
                progress: { _ in })
            Issue.record("it was restored")
        } catch RestoreError.unsupported(_, let reason, _) {
            #expect(reason.contains("strip-components"))
        }
        #expect(try Files.names(in: site.scratch("out/restored")) == [])
    }

    @Test("limits")
    func limits() throws {
        var forged = ForgedBackup()
        forged.frames = [[.init("a"), .init("b")], [.init("c")]]
        try forged.put(into: site.store)
        var limits = ExtractionLimits()
        limits.entries = 2
        #expect(throws: RestoreError.self) { try site.restore(ForgedBackup.key, limits: limits) }
        limits.entries = 3
        _ = try site.restore(ForgedBackup.key, limits: limits)
        limits.bytes = ByteCount(1000)
        #expect(throws: RestoreError.self) { try site.restore(ForgedBackup.key, limits: limits) }
    }
}
