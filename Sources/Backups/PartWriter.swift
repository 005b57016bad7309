internal import HostSystem

/// Puts one object together from ranges of another one and from bytes that come in order, and sends it in parts from several
/// threads. At most a few parts are in memory. One thread calls it.
final class PartWriter {
    /// Several are in memory at once.
    private static let partSize: Int64 = 6 << 20

    private let upload: any ObjectUpload
    private let rules: PartRules
    private let partSize: Int
    private let sender: PartSender
    private let stop: StopFlag
    private var part: [UInt8] = []
    private var number = 0
    private(set) var sent: Int64 = 0
    private(set) var copied: Int64 = 0

    /// - Parameter most: bytes that may come at the most; the parts are made so large that they suffice.
    init(_ upload: any ObjectUpload, rules: PartRules, most: Int64, connections: Int, stop: StopFlag) throws {
        self.upload = upload
        self.rules = rules
        self.stop = stop
        // A fifth of the parts is kept for what is copied.
        let needed = most / Int64(max(1, rules.most / 5 * 4)) + 1
        partSize = Int(min(rules.largest, max(rules.smallest, Self.partSize, needed)))
        sender = try PartSender(upload, connections: connections)
    }

    /// Every run but the last part of the object must be as large as the smallest part.
    func copy(_ run: Range<Int64>, of object: StoredObject) throws {
        var start = run.lowerBound
        while start < run.upperBound {
            var end = start + min(run.upperBound - start, rules.largest)
            // No rest that would be too small.
            if end < run.upperBound && run.upperBound - end < rules.smallest { end = run.upperBound - rules.smallest }
            number += 1
            try sender.put(.copy(number: number, object: object, range: start..<end), stop: stop)
            copied += end - start
            start = end
        }
    }

    func append(_ bytes: [UInt8]) throws {
        if part.isEmpty { part.reserveCapacity(partSize + bytes.count) }
        part += bytes
        if part.count >= partSize { try sendPart() }
    }

    private func sendPart() throws {
        number += 1
        sent += Int64(part.count)
        try sender.put(.send(number: number, bytes: part), stop: stop)
        part = []
    }

    /// Sends what is left, waits for all parts, and makes the object visible.
    func finish() throws -> StoredObject {
        if !part.isEmpty || number == 0 { try sendPart() }
        try sender.finish()
        return try upload.complete()
    }

    func abort(_ error: any Error) {
        sender.abandon(error)
        upload.abort()
    }
}
