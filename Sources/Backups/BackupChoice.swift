public import HostSystem

/// The rule by which the newest complete backup below a prefix is found; docs/backups.md has it for users. Pure: what the
/// store listed and the time go in.
///
/// 1. Only keys directly below the prefix, with the suffix of a known archive, and not empty. Names of unfinished uploads are
///    passed over.
/// 2. Where any archive of the prefix has a companion `KEY.sha256` or `KEY.complete`, an archive without one is not complete:
///    its upload is under way.
///    An archive of amorce's own, `….framed.tar.zst`, is complete with its `KEY.manifest`, and never without.
/// 3. A UTC stamp in the name gives the time, else the store's Last-Modified. The newest wins; between equals, the greater key.
/// 4. Older than `newestWithin`: refused.
public struct BackupChoice {
    /// A complete backup.
    public struct Candidate: Sendable, Equatable {
        public let object: StoredObject
        /// Seconds since 1970.
        public let time: Int64
        /// Whether the name gave the time; else the store did.
        public let isTimeFromName: Bool

        public func age(now: Int64) -> Duration { .seconds(max(0, now - time)) }
    }

    public static func newest(
        in objects: [StoredObject], prefix: String, now: Int64, newestWithin: Duration?
    ) throws(BackupChoiceProblem) -> [Candidate] {
        let present = Set(objects.filter { $0.size != 0 || $0.key.hasSuffix(".complete") }.map(\.key))
        func hasCompanion(_ key: String) -> Bool { companionSuffixes.contains { present.contains(key + $0) } }

        var archives: [StoredObject] = []
        var skipped: [Skipped] = []
        for object in objects {
            if let reason = reasonToSkip(object, prefix: prefix) {
                // Companions and the pointer are part of the convention, and no news.
                if !isConventional(object.key, prefix: prefix) {
                    skipped.append(Skipped(key: object.key, reason: reason))
                }
            } else {
                archives.append(object)
            }
        }
        let usesCompanions = archives.contains { !BackupKey.isFramed($0.key) && hasCompanion($0.key) }
        var candidates: [Candidate] = []
        for object in archives {
            if BackupKey.isFramed(object.key) && !present.contains(BackupKey.manifest(of: object.key)) {
                skipped.append(Skipped(key: object.key, reason: .noManifest))
            } else if usesCompanions && !BackupKey.isFramed(object.key) && !hasCompanion(object.key) {
                skipped.append(Skipped(key: object.key, reason: .noCompanion))
            } else if let (time, isFromName) = time(of: object, now: now) {
                candidates.append(Candidate(object: object, time: time, isTimeFromName: isFromName))
            } else {
                skipped.append(Skipped(key: object.key, reason: .noTime))
            }
        }
        candidates.sort { ($0.time, $0.object.key) > ($1.time, $1.object.key) }
        guard let newest = candidates.first else {
            throw .none(prefix: prefix, skipped: skipped.sorted { $0.key < $1.key })
        }
        guard let newestWithin else { return candidates }
        let recent = candidates.filter { $0.age(now: now) <= newestWithin }
        if recent.isEmpty {
            throw .tooOld(
                newest: newest, age: newest.age(now: now), allowed: newestWithin,
                skipped: skipped.sorted { $0.key < $1.key })
        }
        return recent
    }

    /// A name that was seen and is no candidate.
    public struct Skipped: Sendable, Equatable, CustomStringConvertible {
        public enum Reason: String, Sendable {
            case empty = "empty"
            case unfinishedName = "the name of an unfinished upload"
            case noArchiveName = "not named as an archive"
            case deeper = "in a folder below the prefix"
            case noCompanion = "no .sha256 or .complete beside it, as others have"
            case noManifest = "no .manifest beside it: it is not finished"
            case noTime = "neither its name nor the store gives it a time"
        }

        public let key: String
        public let reason: Reason
        public var description: String { "\(Printable.text(key)): \(reason.rawValue)" }
    }

    /// Seconds: a stamp further in the future is a wrong clock's.
    static let mostAhead: Int64 = 86400

    /// Objects beside an archive that say it is complete.
    static let companionSuffixes = [".sha256", ".complete"]

    /// The object that may name the backup to take.
    public static func pointerKey(prefix: String) -> String { prefix + "latest" }

    private static func isConventional(_ key: String, prefix: String) -> Bool {
        if key == prefix || key == pointerKey(prefix: prefix) { return true }
        if BackupKey.backup(ofManifest: key) != nil { return true }
        return companionSuffixes.contains {
            key.hasSuffix($0) && ArchiveFormat(name: String(key.dropLast($0.count))) != nil
        }
    }

    private static func reasonToSkip(_ object: StoredObject, prefix: String) -> Skipped.Reason? {
        guard object.key.hasPrefix(prefix) else { return .deeper }
        let name = String(object.key.dropFirst(prefix.count))
        if name.contains("/") { return .deeper }
        // rsync, rclone, browsers and careful scripts upload under such names and rename at the end.
        let marks = [".part", ".partial", ".tmp", ".temp", ".incomplete", ".filepart", ".crdownload"]
        let stem = ArchiveFormat.stem(of: name)
        if name.hasPrefix(".") || name.hasPrefix("~") || name.hasSuffix("~") { return .unfinishedName }
        if marks.contains(where: { name.hasSuffix($0) || stem.hasSuffix($0) }) { return .unfinishedName }
        if ArchiveFormat(name: name) == nil { return .noArchiveName }
        if object.size == 0 { return .empty }
        return nil
    }

    /// A stamp more than a day in the future is a wrong clock's, and would win for ever: the store's time is taken then.
    private static func time(of object: StoredObject, now: Int64) -> (Int64, isFromName: Bool)? {
        let name = object.key.split(separator: "/").last.map(String.init) ?? object.key
        if let stamp = NameStamp(in: ArchiveFormat.stem(of: name)), stamp.seconds <= now + mostAhead {
            // A date alone, and the store's time lies within that day: the store knows better.
            if !stamp.hasTime, let modified = object.modified,
                (stamp.seconds..<stamp.seconds + 86400).contains(modified)
            {
                return (modified, true)
            }
            return (stamp.seconds, true)
        }
        return object.modified.map { ($0, false) }
    }
}

public enum BackupChoiceProblem: Error, Sendable, Equatable, CustomStringConvertible {
    /// Nothing usable; with what was seen and why it does not count.
    case none(prefix: String, skipped: [BackupChoice.Skipped])
    case tooOld(newest: BackupChoice.Candidate, age: Duration, allowed: Duration, skipped: [BackupChoice.Skipped])

    public var skipped: [BackupChoice.Skipped] {
        switch self {
        case .none(_, let skipped), .tooOld(_, _, _, let skipped): skipped
        }
    }

    public var description: String {
        let seen =
            skipped.prefix(20).map { "\n  \($0)" }.joined()
            + (skipped.count > 20 ? "\n  and \(skipped.count - 20) more" : "")
        switch self {
        case .none(let prefix, let skipped):
            if skipped.isEmpty { return "there is no backup below \(Printable.text(prefix))" }
            return "there is no complete backup below \(Printable.text(prefix)); seen:" + seen
        case .tooOld(let newest, let age, let allowed, _):
            let text =
                "the newest backup, \(Printable.text(newest.object.key)), is \(age.spoken) old, "
                + "and \(allowed.spoken) is allowed"
            return skipped.isEmpty ? text : text + "; passed over:" + seen
        }
    }
}
