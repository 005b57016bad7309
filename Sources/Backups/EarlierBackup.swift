internal import HostSystem

/// What a new backup takes over from the newest one that is there: whole frames, by a copy inside the store.
///
/// A frame is taken when every file that it holds still is a file of that name, changed or not: a changed one comes again in a later
/// frame, which counts for tar and for amorce alike. A frame with a file that is gone is not taken, or the file would come back;
/// neither is one of which too little is current, or one that lies alone and is smaller than the smallest part of an upload.
struct EarlierBackup {
    /// What is taken, as ranges of the earlier object, in order.
    struct Taken {
        var runs: [Range<Int64>] = []
        /// By the number in the tree.
        var covered: [Bool]
    }

    let object: StoredObject
    let header: BackupHeader
    private let manifest: [UInt8]

    /// Throws what reading the manifest throws.
    init(_ object: StoredObject, manifest: [UInt8]) throws {
        self.object = object
        self.manifest = manifest
        header = try ManifestReader(manifest).header
        guard object.size == header.size else {
            throw ArchiveError.damaged("the object has not the size that its manifest states")
        }
    }

    private struct Frame {
        let range: Range<Int64>
        /// The file of which this is a piece.
        let pieceOf: Int?
        var isTaken: Bool
    }

    /// - Parameter writer: gets the frames that are taken, as the first ones of the new backup.
    func take(for tree: ScannedTree, rules: PartRules, writer: ManifestWriter) throws -> Taken {
        var frames = try judge(tree)
        // A copied run is a part of the upload, of which a fifth may be such ones: what does not fit is the shortest.
        var smallest = rules.smallest
        Self.dropShortRuns(&frames, smallest: smallest)
        while Self.parts(frames, largest: rules.largest) > max(1, rules.most / 5), smallest < .max / 2 {
            smallest = max(smallest, 1 << 20) * 2
            Self.dropShortRuns(&frames, smallest: smallest)
        }
        var taken = Taken(covered: [Bool](repeating: false, count: tree.count))
        for frame in frames where frame.isTaken {
            if let last = taken.runs.last, last.upperBound == frame.range.lowerBound {
                taken.runs[taken.runs.count - 1] = last.lowerBound..<frame.range.upperBound
            } else {
                taken.runs.append(frame.range)
            }
        }
        try write(frames.map(\.isTaken), tree, to: writer, covered: &taken.covered)
        return taken
    }

    /// Whether the tree still has the member's file as the backup has it.
    private func current(_ member: ManifestMember, _ tree: ScannedTree) -> (index: Int, isSame: Bool)? {
        guard let index = tree.index(of: member.member.path), tree[index].kind == .regular else { return nil }
        let entry = tree[index]
        // Changed right after it was read, within the resolution of the clock, it would have this time too (git's
        // Documentation/technical/racy-git). The stamp may be some seconds later than the walk began.
        let isRacy = member.member.modified >= (header.time - 8) * 1_000_000_000
        let isSame =
            !member.isDead && !isRacy && entry.size == member.member.size && entry.modified == member.member.modified
            && entry.mode == member.member.mode
        return (index, isSame)
    }

    private func judge(_ tree: ScannedTree) throws -> [Frame] {
        let reader = try ManifestReader(manifest)
        var frames: [Frame] = []
        while let next = try reader.nextFrame() {
            let range = next.frame.offset..<(next.frame.offset + Int64(next.frame.length))
            var isTaken = next.holdsFiles
            var dead: Int64 = 0
            var pieceOf: Int?
            for member in try ManifestMember.all(in: next.frame.contents) {
                guard let (index, isSame) = current(member, tree) else {
                    isTaken = false
                    break
                }
                // With its header and padding: of small files these are the most of it.
                if !isSame { dead += 512 + (Int64(member.member.count) + 511) / 512 * 512 }
                if member.member.isPiece {
                    pieceOf = index
                    if !isSame { isTaken = false }
                }
            }
            if dead * 10 > Int64(next.frame.unpacked) * 3 { isTaken = false }
            frames.append(Frame(range: range, pieceOf: pieceOf, isTaken: isTaken))
        }
        return frames
    }

    private static func parts(_ run: Int64, largest: Int64) -> Int { run == 0 ? 0 : Int((run - 1) / largest) + 1 }

    /// How many parts of an upload the taken frames make.
    private static func parts(_ frames: [Frame], largest: Int64) -> Int {
        var parts = 0
        var run: Int64 = 0
        for frame in frames {
            if frame.isTaken {
                run += frame.range.upperBound - frame.range.lowerBound
            } else {
                parts += Self.parts(run, largest: largest)
                run = 0
            }
        }
        return parts + Self.parts(run, largest: largest)
    }

    /// A run of frames must be a part of an upload. A file in pieces is taken whole or not at all, which may shorten other runs.
    private static func dropShortRuns(_ frames: inout [Frame], smallest: Int64) {
        var isStable = false
        while !isStable {
            isStable = true
            var start = 0
            while start < frames.count {
                guard frames[start].isTaken else {
                    start += 1
                    continue
                }
                var end = start
                while end < frames.count && frames[end].isTaken { end += 1 }
                if frames[end - 1].range.upperBound - frames[start].range.lowerBound < smallest {
                    for index in start..<end { frames[index].isTaken = false }
                    isStable = false
                }
                start = end
            }
            let broken = Set(frames.filter { !$0.isTaken }.compactMap(\.pieceOf))
            for index in frames.indices where frames[index].isTaken {
                if let file = frames[index].pieceOf, broken.contains(file) {
                    frames[index].isTaken = false
                    isStable = false
                }
            }
        }
    }

    private func write(
        _ isTaken: [Bool], _ tree: ScannedTree, to writer: ManifestWriter, covered: inout [Bool]
    ) throws {
        let reader = try ManifestReader(manifest)
        var number = 0
        while let next = try reader.nextFrame() {
            defer { number += 1 }
            guard isTaken[number] else { continue }
            var members = try ManifestMember.all(in: next.frame.contents)
            for position in members.indices {
                guard let (index, isSame) = current(members[position], tree) else { continue }
                if isSame { covered[index] = true }
                members[position].isDead = !isSame
            }
            try writer.add(next.frame, members: members)
        }
    }
}
