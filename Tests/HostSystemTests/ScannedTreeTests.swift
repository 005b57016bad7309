import Foundation
import TestSupport
import Testing

@testable import HostSystem

struct ScannedTreeTests {
    private let scratch: ScratchDirectory
    private let tree: RawTree

    init() throws {
        scratch = try ScratchDirectory()
        tree = try RawTree(making: scratch("t"))
    }

    private static func name(_ text: String) -> RawTree.Name { Array(text.utf8) }

    private func scan(
        threads: Int = 3, _ isExcluded: @escaping @Sendable ([UInt8], Bool) -> Bool = { _, _ in false }
    ) throws -> ScannedTree {
        try ScannedTree(
            SourceTree(tree.root), options: .init(threads: threads, isExcluded: isExcluded), stop: .bounded())
    }

    @Test("every entry is found by its path, and nothing else", arguments: 1..<4)
    func index(_ seed: Int) throws {
        var random = RandomTree(tree, seed: UInt64(seed))
        random.hasLarge = false
        try random.make(files: 120)
        let scanned = try scan(threads: seed)
        let nodes = try tree.nodes()
        #expect(scanned.count == nodes.count)
        var groups: [RawTree.Name: RawTree.Name] = [:]
        for number in 0..<scanned.count {
            let path = scanned.path(number)
            #expect(scanned.index(of: path) == number)
            let node = try #require(nodes[path])
            let entry = scanned[number]
            #expect(UInt32(entry.mode) == node.mode && entry.modified == node.modified)
            switch entry.kind {
            case .regular: #expect(node.kind == .regular && entry.size == node.size)
            case .directory: #expect(node.kind == .directory)
            case .symlink: #expect(node.kind == .symlink && scanned.linkTarget(number) == node.contents)
            case .hardLink:
                let target = Int(entry.size)
                #expect(target < number && scanned[target].kind == .regular && scanned.fileSize(number) == node.size)
                #expect(nodes[scanned.path(target)]?.group == node.group && node.group != nil)
                groups[path] = node.group
            }
            for absent in [
                path + [0], path + [0x2f], path + [0xff], [0x2f] + path, Array(path.dropLast()), path + path,
            ] {
                #expect((scanned.index(of: absent) != nil) == (nodes[absent] != nil))
            }
        }
        // Of each group all but one are links to it.
        let shared = nodes.filter { $0.value.group != nil }
        #expect(groups.count == shared.count - Set(shared.compactMap(\.value.group)).count)
        for absent in [[], [0x2f], Self.name("."), Self.name(".."), Self.name("absent"), Self.name("absent/x")] {
            #expect(scanned.index(of: absent) == nil)
        }
    }

    @Test("the same for any number of threads")
    func order() throws {
        var random = RandomTree(tree, seed: 9)
        random.hasLarge = false
        try random.make(files: 100)
        let one = try scan(threads: 1)
        let four = try scan(threads: 4)
        #expect((0..<one.count).map { one.path($0) } == (0..<four.count).map { four.path($0) })
        #expect((0..<one.count).map { one[$0].kind } == (0..<four.count).map { four[$0].kind })
    }

    @Test("what is excluded, and what is no file")
    func passedOver() throws {
        for path in ["d", "d/e", "keep"] { try tree.makeDirectory(Self.name(path)) }
        for path in ["d/f", "d/e/g", "keep/f", "a.log", "keep/b.log"] { try tree.write(Self.name(path), [1]) }
        try tree.makeFIFO(Self.name("keep/fifo"))
        try Program.check([
            "python3", "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])",
            tree.root + "/socket",
        ])
        let scanned = try scan { path, isDirectory in
            path.reversed().starts(with: Array(".log".utf8).reversed()) || isDirectory && path == Self.name("d")
        }
        #expect((0..<scanned.count).map { scanned.path($0) } == [Self.name("keep"), Self.name("keep/f")])
        #expect(
            scanned.passedOver.excluded == 3 && scanned.passedOver.specialCount == 2 && scanned.passedOver.vanished == 0
        )
        #expect(scanned.passedOver.special.sorted() == ["keep/fifo: a FIFO", "socket: a socket"])
        #expect(scanned.index(of: Self.name("d/f")) == nil)
    }

    @Test("another file system is not entered")
    func mountPoint() throws {
        try tree.makeDirectory(Self.name("m"))
        try tree.write(Self.name("f"), [1])
        let scanned = try InMountNamespace.run(binding: "/proc", over: tree.root + "/m") { Result { try scan() } }.get()
        #expect(scanned.count == 2 && scanned.passedOver.mountPoints == ["m"])
        #expect(scanned.index(of: Self.name("m")) == 1 && scanned.index(of: Self.name("m/self")) == nil)
    }

    @Test("what goes while it is looked at, and how many directories")
    func vanished() throws {
        for name in ["a", "b", "c"] { try tree.makeDirectory(Self.name(name)) }
        try tree.write(Self.name("a/f"), [1])
        for name in ["x", "y", "z"] { try tree.makeSymlink(Self.name(name), to: Self.name("a")) }
        let root = tree.root
        // Asked behind the entry's status, and before a directory's entries or a symlink's target are.
        let scanned = try scan(threads: 1) { path, _ in
            switch path {
            case Self.name("c"):
                try? Files.removeTree(root + "/a")
                try? Files.removeTree(root + "/b")
                try? Files.symlink(target: "c", at: root + "/b")
            case Self.name("x"): try? Files.remove(root + "/x")
            case Self.name("y"):
                try? Files.remove(root + "/y")
                try? Files.makeNewDirectory(root + "/y", mode: 0o755)
            default: break
            }
            return false
        }
        #expect((0..<scanned.count).map { scanned.path($0) } == ["a", "b", "c", "z"].map(Self.name))
        #expect(scanned.passedOver.vanished == 4 && scanned.passedOver.vanishedDirectoryCount == 2)
        #expect(scanned.passedOver.vanishedDirectories.sorted() == ["a", "b"])
    }

    @Test("a directory that cannot be read ends it")
    func unreadable() throws {
        for name in ["a", "b", "c"] {
            try tree.makeDirectory(Self.name(name))
            try tree.write(Self.name(name + "/f"), [1])
        }
        #expect(try WithoutRights.run { try scan() }.count == 6)
        try tree.setMode(Self.name("b"), 0o700)
        do {
            _ = try WithoutRights.run { try scan() }
            Issue.record("it was read")
        } catch let error as HostError {
            #expect(error.description.contains("/t/b"))
        }
    }

    @Test("a file that cannot be read ends the packing")
    func unreadableFile() throws {
        try tree.write(Self.name("a"), [1], mode: 0o644)
        try tree.write(Self.name("b"), [1], mode: 0o600)
        #expect(throws: HostError.self) {
            try WithoutRights.run {
                let source = try SourceTree(tree.root)
                let scanned = try scan()
                return try FramePacker(source, scanned, large: LargeFiles()).pack(files: [0, 1], level: 1).bytes.count
            }
        }
    }

    @Test("stopped, and a root that is none")
    func stopped() throws {
        try tree.write(Self.name("a"), [1])
        let stop = StopFlag.bounded()
        stop.raise(signal: 15)
        #expect(throws: StopReason.self) {
            try ScannedTree(SourceTree(tree.root), options: .init(threads: 2), stop: stop)
        }
        #expect(throws: HostError.self) { try SourceTree(tree.root + "/a") }
        #expect(throws: HostError.self) { try SourceTree(tree.root + "/absent") }
        // `current` is a symlink, and the only one that is followed.
        try Files.symlink(target: "t", at: scratch("current"))
        #expect(
            try ScannedTree(SourceTree(scratch("current")), options: .init(threads: 1), stop: .bounded()).count == 1)
    }
}
