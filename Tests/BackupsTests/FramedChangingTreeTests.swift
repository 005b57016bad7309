import Foundation
import Synchronization
import TestSupport
import Testing

@testable import Backups
@testable import HostSystem

/// A tree that changes while a backup of it is made: what changed is reported, and the backup is whole in any case.
struct FramedChangingTreeTests {
    private static func name(_ text: String) -> RawTree.Name { Array(text.utf8) }
    private let site: FramedSite

    init() throws {
        site = try FramedSite()
        for name in ["a", "b", "c"] { try site.tree.write(Self.name(name), Array("contents of \(name)".utf8)) }
        try site.tree.makeDirectory(Self.name("d"))
        try site.tree.write(Self.name("d/e"), [1, 2, 3])
        try site.scratch.write("elsewhere/e", "a secret")
    }

    /// A backup of a tree that changes when it is scanned and nothing is read.
    private func create(_ change: @escaping @Sendable (RawTree) throws -> Void) throws -> CreateBackup.Result {
        let tree = site.tree
        site.store.beforeList { try change(tree) }
        defer { site.store.beforeList(nil) }
        let made = try site.create()
        _ = try site.verify(made.key)
        _ = try site.untar(made.key)
        return made
    }

    private static func large(_ size: Int) -> [UInt8] {
        var random = SeededGenerator(UInt64(size))
        return random.bytes(size)
    }

    @Test("small files", arguments: 0..<9)
    func small(_ number: Int) throws {
        let outside = Self.name(site.scratch("elsewhere"))
        let made = try create { tree in
            let b = Self.name("b")
            switch number {
            case 0: try tree.remove(b)
            case 1: try tree.write(b, [UInt8](repeating: 7, count: 100_000))
            case 2: try tree.write(b, [])
            case 3:
                try tree.remove(b)
                try tree.makeFIFO(b)
            case 4:
                try tree.remove(b)
                try tree.makeSymlink(b, to: Self.name("a"))
            case 5:
                try tree.remove(b)
                try tree.makeDirectory(b)
            case 6:
                try tree.remove(Self.name("d"))
                try tree.makeSymlink(Self.name("d"), to: outside)
            case 7: try tree.write(b, Self.large(9 << 20))
            default:
                try tree.remove(Self.name("d"))
                try tree.write(Self.name("d"), [])
            }
        }
        let isGone = ![1, 2, 7].contains(number)
        #expect(made.vanished == (isGone ? 1 : 0) && made.changed == [])
        #expect(made.files == (isGone ? 3 : 4))
        let restored = try site.restore(made.key)
        if !isGone { #expect(try restored.bytes(Self.name("b")) == site.tree.bytes(Self.name("b"))) }
        if [6, 8].contains(number) { #expect(!Files.exists(restored.root + "/d/e")) }
        // And the next one is right again.
        try site.expectNextIsWhole()
    }

    @Test("all files go")
    func nothingLeft() throws {
        #expect(throws: CreateBackup.Empty.self) {
            try create { tree in for name in ["a", "b", "c", "d/e"] { try tree.remove(Self.name(name)) } }
        }
        #expect(site.store.keys == [] && site.store.aborted == 1)
    }

    @Test(
        "a large file, before it is read",
        arguments: [nil, 0, 100, 4 << 20, (5 << 20) + 1, 8 << 20, 12 << 20, 13 << 20])
    func large(_ size: Int?) throws {
        let large = Self.name("large")
        try site.tree.write(large, Self.large(12 << 20))
        let made = try create { tree in
            try tree.remove(large)
            if let size { try tree.write(large, Self.large(size)) } else { try tree.makeFIFO(large) }
        }
        #expect(made.vanished == (size == nil ? 1 : 0))
        #expect(made.changed == (size == nil || size == 12 << 20 ? [] : ["large"]))
        let restored = try site.restore(made.key)
        if let size {
            let bytes = try restored.bytes(large)
            #expect(bytes == Array(Self.large(size).prefix(12 << 20)) && Self.large(size).starts(with: bytes))
            #expect(try site.untar(made.key).bytes(large) == bytes)
        } else {
            #expect(!Files.exists(restored.root + "/large"))
        }
        try site.expectNextIsWhole()
    }

    @Test("a large file, while it is read", arguments: 0..<4)
    func largeMeanwhile(_ number: Int) throws {
        let large = Self.name("large")
        try site.tree.write(large, Self.large(60 << 20))
        let tree = site.tree
        let isDone = Atomic<Bool>(false)
        var slow = site
        slow.threads = 1
        let made = try slow.create { progress in
            if progress.bytes < 4 << 20 || isDone.exchange(true, ordering: .relaxed) { return }
            switch number {
            case 0: truncate(tree.root + "/large", 6 << 20)
            case 1: try? tree.remove(large)
            case 2: try? tree.write(large, Self.large(70 << 20))
            default:
                try? tree.remove(large)
                try? tree.makeFIFO(large)
            }
        }
        let wasChanged = isDone.load(ordering: .relaxed)
        #expect(wasChanged)
        // A file that lost its name while it was read was read whole.
        #expect(made.vanished == 0 && made.changed == (number == 1 || number == 3 ? [] : ["large"]))
        _ = try site.verify(made.key)
        _ = try site.untar(made.key)
        let restored = try site.restore(made.key).bytes(large)
        #expect(restored.count == 60 << 20 && restored.prefix(4 << 20) == Self.large(60 << 20).prefix(4 << 20))
        if number == 1 { #expect(restored == Self.large(60 << 20)) }
        try site.expectNextIsWhole()
    }

    @Test("files that change all the time")
    func restless() throws {
        for number in 0..<40 { try site.tree.write(Self.name("r\(number)"), Self.large(200_000)) }
        let tree = site.tree
        let isDone = Atomic<Bool>(false)
        let ended = DispatchSemaphore(value: 0)
        Thread {
            var random = SeededGenerator(3)
            while !isDone.load(ordering: .relaxed) {
                let name = Self.name("r\(random.below(40))")
                switch random.below(4) {
                case 0: try? tree.remove(name)
                case 1: truncate(tree.at(name), random.below(300_000))
                default: try? tree.write(name, random.bytes(random.below(400_000)))
                }
            }
            ended.signal()
        }.start()
        var made: [CreateBackup.Result] = []
        var site = site
        for _ in 0..<8 {
            site.now += 60
            made.append(try site.create())
        }
        isDone.store(true, ordering: .relaxed)
        ended.wait()
        for made in made {
            #expect(try site.verify(made.key).files == made.files)
            _ = try site.untar(made.key)
            _ = try site.restore(made.key)
        }
        try site.expectNextIsWhole()
    }

    @Test("the first name of a file with several is gone", arguments: [100, 9 << 20])
    func hardLinks(_ size: Int) throws {
        let contents = Self.large(size)
        try site.tree.write(Self.name("l1"), contents)
        for name in ["l2", "l3", "l4"] { try site.tree.makeLink(Self.name(name), to: Self.name("l1")) }
        let made = try create { tree in
            try tree.remove(Self.name("l1"))
            try tree.remove(Self.name("l2"))
        }
        #expect(made.vanished == 2)
        for restored in [try site.restore(made.key), try site.untar(made.key)] {
            #expect(try restored.bytes(Self.name("l3")) == contents)
            #expect(try restored.nodes()[Self.name("l4")]?.group == Self.name("l3"))
            #expect(!Files.exists(restored.root + "/l1") && !Files.exists(restored.root + "/l2"))
        }
        try site.expectNextIsWhole()
    }

    @Test("the first name of a file with several is another file by the time it is read", arguments: [100, 9 << 20])
    func hardLinksDetached(_ size: Int) throws {
        let contents = Self.large(size)
        try site.tree.write(Self.name("l1"), contents)
        for name in ["l2", "l3"] { try site.tree.makeLink(Self.name(name), to: Self.name("l1")) }
        let made = try create { tree in
            try tree.remove(Self.name("l1"))
            try tree.write(Self.name("l1"), Self.large(200))
        }
        #expect(made.vanished == 0)
        for restored in [try site.restore(made.key), try site.untar(made.key)] {
            #expect(try restored.bytes(Self.name("l1")) == Self.large(200))
            #expect(try restored.bytes(Self.name("l2")) == contents)
            #expect(try restored.nodes()[Self.name("l3")]?.group == Self.name("l2"))
        }
        try site.expectNextIsWhole()
    }

    @Test("a tree that is being removed makes no backup")
    func removed() throws {
        for number in 0..<100 { try site.tree.write(Self.name("f\(number)"), [1]) }
        #expect(throws: CreateBackup.Vanishing(path: site.tree.root, gone: 30, of: 105)) {
            try create { tree in for number in 0..<30 { try tree.remove(Self.name("f\(number)")) } }
        }
        #expect(site.store.keys == [] && site.store.aborted == 1)
    }

    @Test("what a restore would refuse is left out, with a word: too deep, or leading out by another link")
    func notRestorable() throws {
        try site.tree.makeDirectory(Self.name("x"))
        try site.tree.makeDirectory(Self.name("x/y"))
        try site.tree.makeSymlink(Self.name("x/y/s"), to: Self.name("../../d"))
        try site.tree.makeSymlink(Self.name("x/y/l"), to: Self.name("s/../../elsewhere"))
        var deep = "deep"
        for _ in 0..<260 {
            try site.tree.makeDirectory(Self.name(deep))
            deep += "/d"
        }
        let made = try site.create()
        #expect(made.leadingOut == ["x/y/l"] && made.special == 1)
        #expect(made.specialNames.allSatisfy { $0.hasSuffix("too deep, or its path too long, for a restore") })
        #expect(try site.restore(made.key).nodes()[Self.name("x/y/s")] != nil)
    }

    @Test("all names of a file with several are gone")
    func hardLinksGone() throws {
        for name in ["l2", "l3"] { try site.tree.makeLink(Self.name(name), to: Self.name("c")) }
        let made = try create { tree in for name in ["c", "l2", "l3"] { try tree.remove(Self.name(name)) } }
        #expect(made.vanished == 3 && made.links == 0)
        #expect(try site.restore(made.key).nodes().count == 4)
    }
}

extension FramedSite {
    /// A backup of the tree as it is by now, on top of the last one. FIFOs are no part of it.
    func expectNextIsWhole(sourceLocation: SourceLocation = #_sourceLocation) throws {
        for (path, node) in try tree.nodes() {
            if node.kind == .other { try tree.remove(path) }
            if node.kind == .symlink && node.contents.first == 0x2f { try tree.remove(path) }
        }
        var later = self
        later.now += 86400
        try later.expectWhole(try later.create().key, sourceLocation: sourceLocation)
    }
}
