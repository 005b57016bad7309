import HostSystem

/// Makes trees and changes them, by a seed.
public struct RandomTree {
    public let tree: RawTree
    public var random: SeededGenerator
    private var counter = 0
    /// Whether files of several MiB are made.
    public var hasLarge = true

    public init(_ tree: RawTree, seed: UInt64) {
        self.tree = tree
        random = SeededGenerator(seed)
    }

    public mutating func name() -> RawTree.Name {
        counter += 1
        let odd: [[UInt8]] = [
            Array("plain.txt".utf8), Array("two words".utf8), [0x0a], [0x09, 0x25], Array("%41".utf8),
            [0xe9, 0x74, 0xe9], Array("é日本".utf8), [0x01, 0x7f, 0xff], Array("-rf".utf8), Array("photo.jpg".utf8),
            [UInt8](repeating: 0x6e, count: 60 + random.below(180)), Array("a\\b\"c'".utf8), Array("...".utf8),
        ]
        return (odd.randomElement(using: &random) ?? []) + Array("\(counter)".utf8)
    }

    public mutating func time() -> Int64 {
        let seconds = random.oneIn(12) ? -Int64(random.below(1_000_000_000)) : Int64(random.below(1_700_000_000))
        return seconds * 1_000_000_000 + Int64(random.below(1_000_000_000))
    }

    public mutating func size() -> Int {
        let edges = [
            0, 1, 511, 512, 513, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20,
        ]
        switch random.below(10) {
        case 0 where hasLarge: return edges.randomElement(using: &random) ?? 0
        case 1, 2: return edges[random.below(5)]
        case 3: return random.below(200_000)
        default: return random.below(3000)
        }
    }

    public mutating func mode() -> UInt32 {
        [0o644, 0o600, 0o755, 0o444, 0o000, 0o4755, 0o2640, 0o1777, 0o777].randomElement(using: &random) ?? 0o644
    }

    public mutating func writeFile(_ path: RawTree.Name) throws {
        let bytes = random.bytes(size())
        try tree.write(path, bytes, mode: mode())
        try tree.setTime(path, time())
    }

    private func inside(_ directory: RawTree.Name, _ name: RawTree.Name) -> RawTree.Name {
        directory.isEmpty ? name : directory + [0x2f] + name
    }

    public mutating func make(files: Int) throws {
        for _ in 0..<files { try change() }
        var sized = hasLarge ? [0, (2 << 20) - 1, (2 << 20) + 1, (4 << 20) - 1, (4 << 20) + 1, 11 << 20] : [0]
        while let size = sized.popLast() {
            let path = name()
            try tree.write(path, random.bytes(size))
            try tree.setTime(path, time())
        }
        try settleTimes()
    }

    /// Directories change whenever something in them does: their times are set last.
    public mutating func settleTimes() throws {
        for (path, node) in try tree.nodes().sorted(by: { $1.key.lexicographicallyPrecedes($0.key) })
        where node.kind == .directory { try tree.setTime(path, time()) }
    }

    /// One random change.
    public mutating func change() throws {
        let nodes = try tree.nodes()
        let paths = nodes.keys.sorted { $0.lexicographicallyPrecedes($1) }
        let files = paths.filter { nodes[$0]?.kind == .regular }
        let directories = paths.filter { nodes[$0]?.kind == .directory && $0.count < 600 } + [[]]
        let directory = directories.randomElement(using: &random) ?? []
        let new = inside(directory, name())
        switch random.below(16) {
        case 0, 1:
            try tree.makeDirectory(new, mode: [0o755, 0o700, 0o555, 0o1777, 0o000].randomElement(using: &random) ?? 0)
        case 2:
            try tree.makeSymlink(new, to: name())
            try tree.setTime(new, time())
        case 3:
            if let file = files.randomElement(using: &random) { try tree.makeLink(new, to: file) }
        case 4:
            // A hard link is broken: the same bytes, another file.
            if let file = files.randomElement(using: &random), let node = nodes[file] {
                let bytes = try tree.bytes(file)
                try tree.remove(file)
                try tree.write(file, bytes, mode: node.mode)
                try tree.setTime(file, node.modified)
            }
        case 5: if let file = files.randomElement(using: &random) { try tree.setTime(file, time()) }
        case 6: if let file = files.randomElement(using: &random) { try tree.setMode(file, mode()) }
        case 7:
            if files.count > 3, let path = paths.randomElement(using: &random), nodes[path]?.kind != .directory {
                try tree.remove(path)
            }
        case 8:
            // A file or a folder gets another name.
            if let path = paths.randomElement(using: &random), !directory.starts(with: path) {
                try tree.rename(path, to: new)
            }
        case 9:
            // Another kind takes the name.
            if files.count > 3, let path = paths.randomElement(using: &random), let kind = nodes[path]?.kind {
                if kind == .directory && paths.count(where: { $0.starts(with: path + [0x2f]) }) > 6 { return }
                try tree.remove(path)
                switch (kind, random.below(2)) {
                case (.regular, 0): try tree.makeSymlink(path, to: name())
                case (.regular, _), (.symlink, 0): try tree.makeDirectory(path)
                default: try writeFile(path)
                }
            }
        case 10, 11:
            // Another content, sometimes of the same size.
            if let file = files.randomElement(using: &random), let node = nodes[file] {
                let count = random.oneIn(2) ? Int(node.size) : size()
                try tree.write(file, random.bytes(count), mode: node.mode)
                try tree.setTime(file, time())
            }
        default: try writeFile(new)
        }
    }
}
