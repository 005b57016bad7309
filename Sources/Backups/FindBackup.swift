public import HostSystem

/// Finds the backups of a prefix in a store, the one to restore first.
public struct FindBackup: Sendable {
    private let store: any ObjectStore
    private let log: Log

    public init(store: any ObjectStore, log: Log) {
        self.store = store
        self.log = log
    }

    /// By the rule of `BackupChoice`. An object `latest` directly below the prefix, whose text names a backup, puts that one
    /// first; where it names none that is there, complete and recent enough, a warning is logged and the newest is taken.
    /// Throws `BackupChoiceProblem`, or what the store throws.
    public func candidates(
        prefix: String, now: Int64, newestWithin: Duration?, stop: StopFlag
    ) throws -> [BackupChoice.Candidate] {
        let objects = try store.list(prefix: prefix, stop: stop)
        let candidates = try BackupChoice.newest(in: objects, prefix: prefix, now: now, newestWithin: newestWithin)
        let pointer = BackupChoice.pointerKey(prefix: prefix)
        guard objects.contains(where: { $0.key == pointer }) else { return candidates }
        let text: [UInt8]
        do {
            guard let read = try store.read(key: pointer, limit: 4096, stop: stop) else { return candidates }
            text = read
        } catch let stopped as StopReason {
            throw stopped
        } catch {
            log.warning("\(Printable.text(pointer)) cannot be read, the newest backup is taken: \(error)")
            return candidates
        }
        let name = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isNewline).first.map(String.init) ?? ""
        guard let key = Self.key(named: name, prefix: prefix),
            let index = candidates.firstIndex(where: { $0.object.key == key })
        else {
            log.warning(
                "\(Printable.text(pointer)) names \"\(Printable.text(name))\", which is not there, not complete "
                    + "or too old: the newest backup is taken")
            return candidates
        }
        var ordered = candidates
        ordered.insert(ordered.remove(at: index), at: 0)
        return ordered
    }

    /// A bare name, or a whole key of this prefix.
    private static func key(named text: String, prefix: String) -> String? {
        var name = text
        while let last = name.last, last.isWhitespace { name.removeLast() }
        while let first = name.first, first.isWhitespace || first == "/" { name.removeFirst() }
        if name.isEmpty { return nil }
        return name.hasPrefix(prefix) ? name : prefix + name
    }
}
