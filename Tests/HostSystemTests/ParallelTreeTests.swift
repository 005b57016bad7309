import TestSupport
import Testing

@testable import HostSystem

/// An archive unpacked by several threads gives the tree that GNU tar makes of it.
struct ParallelTreeTests {
    private let scratch: ScratchDirectory
    private let tree: RawTree

    init() throws {
        scratch = try ScratchDirectory()
        tree = try RawTree(making: scratch("t"))
    }

    private func expectSame(_ threads: Int, sourceLocation: SourceLocation = #_sourceLocation) throws {
        for name in ["gnu", "own"] {
            try Files.removeTree(scratch(name))
            try Files.makeNewDirectory(scratch(name), mode: 0o700)
        }
        try Program.check(["tar", "-xpf", scratch("x.tar"), "-C", scratch("gnu")])
        let bytes = try FileReading.bytes(scratch("x.tar"), limit: 1 << 30)
        var options = ArchiveExtraction.Options(format: .tar, size: Int64(bytes.count))
        options.threads = threads
        let result = try ArchiveExtraction.run(
            into: scratch("own"), options: options, stop: .bounded(), progress: { _ in }
        ) {
            TestByteSource(bytes, from: $0)
        }
        let wanted = try RawTree(scratch("gnu")).nodes().mapValues {
            var node = $0
            switch node.kind {
            case .regular: node.mode = node.mode & 0o777 | 0o600
            case .directory: node.mode = node.mode & 0o777 | 0o700
            default: break
            }
            return node
        }
        let found = try RawTree(scratch("own")).nodes()
        #expect(RawTree.differences(wanted, found) == [], sourceLocation: sourceLocation)
        #expect(result.directories == wanted.values.count { $0.kind == .directory }, sourceLocation: sourceLocation)
    }

    private func tar(_ arguments: [String]) throws {
        // GNU's format keeps whole seconds, as both sides then do.
        try Program.check(["tar", "--format=gnu"] + arguments + ["-f", scratch("x.tar"), "-C", tree.root, "."])
    }

    @Test("random trees, and the same tree appended after changes", arguments: 0..<4)
    func appended(_ seed: Int) throws {
        var random = RandomTree(tree, seed: UInt64(seed) + 40)
        random.hasLarge = seed == 0
        try random.make(files: 80)
        try tar(["-c"])
        try expectSame(1 + seed)
        // Contents, times and modes change; kinds do not, or either refuses.
        for (path, node) in try tree.nodes() where node.kind == .regular {
            switch random.random.below(4) {
            case 0: try tree.write(path, random.random.bytes(random.random.below(2_000_000) / 7), mode: 0o640)
            case 1:
                try tree.remove(path)
                try tree.write(path, [1], mode: 0o600)
            default: break
            }
        }
        try random.settleTimes()
        try tar(["-r"])
        try expectSame(1 + seed)
    }

    @Test("hard links behind their files, large files between small ones", arguments: [1, 2, 5])
    func links(_ threads: Int) throws {
        var random = SeededGenerator(4)
        for number in 0..<40 {
            let directory = Array("d\(number % 7)".utf8)
            if number < 7 { try tree.makeDirectory(directory) }
            let size = [10, 3 << 20, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 0][number % 6]
            try tree.write(directory + Array("/f\(number)".utf8), random.bytes(size))
            try tree.makeLink(directory + Array("/g\(number)".utf8), to: directory + Array("/f\(number)".utf8))
            try tree.makeLink(Array("d0/x\(number)".utf8), to: directory + Array("/f\(number)".utf8))
        }
        try tar(["-c", "--sort=name"])
        try expectSame(threads)
    }

    @Test("a name that is file and directory is refused in either order", arguments: 0..<4)
    func clashes(_ number: Int) throws {
        for _ in 0..<10 {
            var tar = TarBuilder()
            for filler in 0..<20 { tar.add("x\(filler)/f", content: [1]) }
            switch number {
            case 0:
                tar.add("a", content: [1])
                tar.add("a/b", content: [1])
            case 1:
                tar.add("a/b", content: [1])
                tar.add("a", content: [1])
            case 2:
                tar.add("a", type: "2", link: "x1")
                tar.add("a/b", content: [1])
            default:
                tar.add("a/", type: "5")
                tar.add("a", type: "2", link: "x1")
            }
            let attempt = try Attempt(tar.finished) { $0.threads = 3 }
            guard case .refused? = attempt.error else {
                Issue.record("not refused: \(attempt.result)")
                return
            }
            #expect(try attempt.isOutsideUntouched)
        }
    }

    @Test("stopped in the middle")
    func stopped() throws {
        var tar = TarBuilder()
        for number in 0..<3000 { tar.add("d\(number % 50)/f\(number)", content: [UInt8](repeating: 1, count: 1000)) }
        let bytes = tar.finished
        try Files.makeNewDirectory(scratch("own"), mode: 0o700)
        let stop = StopFlag.bounded()
        #expect(throws: StopReason.self) {
            try ArchiveExtraction.run(
                into: scratch("own"), options: .init(format: .tar, size: Int64(bytes.count)), stop: stop,
                progress: { if $0.items > 500 { stop.raise(signal: 15) } }
            ) { TestByteSource(bytes, from: $0) }
        }
    }
}
