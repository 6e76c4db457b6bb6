// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IToken {
    function decimals() external view returns (uint8);
    function balanceOf(address who) external view returns (uint256);
    function transfer(address to, uint256 value) external returns (bool);
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// Speaks as Curve's StableSwap pools do (NG, or the plain ones before it), with maths written for these tests.
/// Deposits and withdrawals are simpler than Curve's: a mirror reads what they leave behind.
contract StablePool {
    uint256 constant ONE = 10 ** 18;
    uint256 constant FEES = 10 ** 10;
    uint256 constant PRECISION = 100;

    address[] public coins;
    uint256[] private held;
    uint256[] public admin_balances;
    uint256[] private multiplier;
    uint256[] private oracle;
    bool private immutable ng;
    bool private immutable rebases;
    uint256 private flat;
    uint256 private offpeg;
    uint256 public initial_A;
    uint256 public future_A;
    uint256 public initial_A_time;
    uint256 public future_A_time;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed sender, address indexed receiver, uint256 value);
    event TokenExchange(address indexed buyer, int128 sold_id, uint256 sold, int128 bought_id, uint256 bought);
    event AddLiquidity(address indexed provider, uint256[] amounts, uint256[] fees, uint256 invariant, uint256 supply);
    event RemoveLiquidity(address indexed provider, uint256[] amounts, uint256[] fees, uint256 supply);
    event RemoveLiquidityOne(address indexed provider, int128 id, uint256 burnt, uint256 paid, uint256 supply);
    event RampA(uint256 old_A, uint256 new_A, uint256 initial_time, uint256 future_time);
    event StopRampA(uint256 A, uint256 t);
    event ApplyNewFee(uint256 fee, uint256 offpeg_fee_multiplier);

    constructor(address[] memory all, uint256 a, uint256 fee_, uint256 offpeg_, bool isNg, bool isRebasing) {
        ng = isNg;
        rebases = isRebasing;
        for (uint256 k = 0; k < all.length; k++) {
            coins.push(all[k]);
            held.push(0);
            admin_balances.push(0);
            multiplier.push(10 ** (36 - IToken(all[k]).decimals()));
            oracle.push(ONE);
        }
        initial_A = a * PRECISION;
        future_A = a * PRECISION;
        flat = fee_;
        offpeg = offpeg_;
        emit Transfer(address(0), msg.sender, 0);
    }

    // What may be asked.

    function fee() external view returns (uint256) {
        return flat;
    }

    function offpeg_fee_multiplier() external view returns (uint256) {
        require(ng, "of old");
        return offpeg;
    }

    function stored_rates() external view returns (uint256[] memory) {
        require(ng, "of old");
        return _rates();
    }

    function balances(uint256 k) external view returns (uint256) {
        return _balances()[k];
    }

    function A() external view returns (uint256) {
        return _amp() / PRECISION;
    }

    function A_precise() external view returns (uint256) {
        return _amp();
    }

    function get_dy(int128 i, int128 j, uint256 dx) external view returns (uint256) {
        (uint256 out,) = _quote(uint256(uint128(i)), uint256(uint128(j)), dx);
        return out;
    }

    // What may be done.

    function exchange(int128 i, int128 j, uint256 dx, uint256 least) external returns (uint256) {
        uint256 to = uint256(uint128(j));
        (uint256 out, uint256 kept) = _quote(uint256(uint128(i)), to, dx);
        require(out >= least, "too little");
        _take(uint256(uint128(i)), dx);
        admin_balances[to] += kept / 2;
        _give(to, out);
        emit TokenExchange(msg.sender, i, dx, j, out);
        return out;
    }

    function add_liquidity(uint256[] calldata amounts, uint256 least) external returns (uint256 minted) {
        uint256 amp = _amp();
        uint256 before = totalSupply == 0 ? 0 : _invariant(_scaled(_balances()), amp);
        uint256[] memory fees = new uint256[](amounts.length);
        for (uint256 k = 0; k < amounts.length; k++) {
            if (amounts[k] > 0) _take(k, amounts[k]);
            if (totalSupply > 0) {
                fees[k] = amounts[k] * flat / (2 * FEES);
                admin_balances[k] += fees[k] / 2;
            }
        }
        uint256 afterwards = _invariant(_scaled(_balances()), amp);
        minted = totalSupply == 0 ? afterwards : totalSupply * (afterwards - before) / before;
        require(minted > 0 && minted >= least, "too little");
        totalSupply += minted;
        balanceOf[msg.sender] += minted;
        emit Transfer(address(0), msg.sender, minted);
        emit AddLiquidity(msg.sender, amounts, fees, afterwards, totalSupply);
    }

    function remove_liquidity(uint256 burnt, uint256[] calldata least) external returns (uint256[] memory amounts) {
        amounts = _balances();
        for (uint256 k = 0; k < amounts.length; k++) {
            amounts[k] = amounts[k] * burnt / totalSupply;
            require(amounts[k] >= least[k], "too little");
            _give(k, amounts[k]);
        }
        _burn(burnt);
        emit RemoveLiquidity(msg.sender, amounts, new uint256[](0), totalSupply);
    }

    function remove_liquidity_one_coin(uint256 burnt, int128 i, uint256 least) external returns (uint256 paid) {
        uint256 k = uint256(uint128(i));
        uint256 share = _balances()[k] * burnt / totalSupply;
        paid = share - share * flat / FEES;
        require(paid > 0 && paid >= least, "too little");
        admin_balances[k] += (share - paid) / 2;
        _give(k, paid);
        _burn(burnt);
        emit RemoveLiquidityOne(msg.sender, i, burnt, paid, totalSupply);
    }

    function withdraw_admin_fees() external {
        for (uint256 k = 0; k < coins.length; k++) {
            uint256 due = admin_balances[k];
            admin_balances[k] = 0;
            if (due > 0) _give(k, due);
        }
    }

    function ramp_A(uint256 a, uint256 until) external {
        uint256 now_ = _amp();
        initial_A = now_;
        future_A = a * PRECISION;
        initial_A_time = block.timestamp;
        future_A_time = until;
        emit RampA(now_, a * PRECISION, block.timestamp, until);
    }

    function stop_ramp_A() external {
        uint256 now_ = _amp();
        initial_A = now_;
        future_A = now_;
        initial_A_time = block.timestamp;
        future_A_time = block.timestamp;
        emit StopRampA(now_, block.timestamp);
    }

    function set_new_fee(uint256 fee_, uint256 offpeg_) external {
        flat = fee_;
        offpeg = offpeg_;
        emit ApplyNewFee(fee_, offpeg_);
    }

    /// As an oracle's answer moves: no event tells of it.
    function set_rate(uint256 k, uint256 value) external {
        oracle[k] = value;
    }

    // How it is done.

    function _take(uint256 k, uint256 amount) private {
        require(IToken(coins[k]).transferFrom(msg.sender, address(this), amount), "not paid");
        held[k] += amount;
    }

    function _give(uint256 k, uint256 amount) private {
        held[k] -= amount;
        require(IToken(coins[k]).transfer(msg.sender, amount), "not paid");
    }

    function _burn(uint256 amount) private {
        balanceOf[msg.sender] -= amount;
        totalSupply -= amount;
        emit Transfer(msg.sender, address(0), amount);
    }

    function _balances() private view returns (uint256[] memory out) {
        out = new uint256[](coins.length);
        for (uint256 k = 0; k < out.length; k++) {
            out[k] = (rebases ? IToken(coins[k]).balanceOf(address(this)) : held[k]) - admin_balances[k];
        }
    }

    function _rates() private view returns (uint256[] memory out) {
        out = new uint256[](coins.length);
        for (uint256 k = 0; k < out.length; k++) out[k] = multiplier[k] * oracle[k] / ONE;
    }

    function _scaled(uint256[] memory amounts) private view returns (uint256[] memory out) {
        uint256[] memory rates = _rates();
        out = new uint256[](amounts.length);
        for (uint256 k = 0; k < out.length; k++) out[k] = amounts[k] * rates[k] / ONE;
    }

    function _amp() private view returns (uint256) {
        if (block.timestamp >= future_A_time) return future_A;
        uint256 gone = block.timestamp - initial_A_time;
        uint256 span = future_A_time - initial_A_time;
        if (future_A > initial_A) return initial_A + (future_A - initial_A) * gone / span;
        return initial_A - (initial_A - future_A) * gone / span;
    }

    function _quote(uint256 i, uint256 j, uint256 dx) private view returns (uint256 out, uint256 kept) {
        require(i != j, "the same coin");
        uint256[] memory rates = _rates();
        uint256[] memory xp = _scaled(_balances());
        uint256 amp = _amp();
        uint256 x = xp[i] + dx * rates[i] / ONE;
        uint256 y = _other(i, j, x, xp, amp, _invariant(xp, amp));
        uint256 gross = xp[j] - y - 1;
        uint256 rate = flat;
        if (ng && offpeg > FEES) {
            uint256 a = (xp[i] + x) / 2;
            uint256 b = (xp[j] + y) / 2;
            rate = offpeg * flat / ((offpeg - FEES) * 4 * a * b / ((a + b) * (a + b)) + FEES);
        }
        uint256 charged = rate * gross / FEES;
        out = (gross - charged) * ONE / rates[j];
        kept = charged * ONE / rates[j];
    }

    /// D of Ann S + D = Ann D + D^(n+1) / (n^n prod x), by Newton's method, rounded as the generation rounds.
    function _invariant(uint256[] memory xp, uint256 amp) private view returns (uint256 d) {
        uint256 n = xp.length;
        uint256 sum;
        for (uint256 k = 0; k < n; k++) sum += xp[k];
        if (sum == 0) return 0;
        uint256 ann = amp * n;
        d = sum;
        for (uint256 round = 0; round < 255; round++) {
            uint256 p = d;
            for (uint256 k = 0; k < n; k++) p = ng ? p * d / xp[k] : p * d / (xp[k] * n);
            if (ng) p /= n ** n;
            uint256 last = d;
            d = (ann * sum / PRECISION + p * n) * d / ((ann - PRECISION) * d / PRECISION + (n + 1) * p);
            if ((d > last ? d - last : last - d) <= 1) return d;
        }
        revert("no end");
    }

    function _other(uint256 i, uint256 j, uint256 x, uint256[] memory xp, uint256 amp, uint256 d)
        private
        pure
        returns (uint256 y)
    {
        uint256 n = xp.length;
        uint256 sum;
        uint256 c = d;
        for (uint256 k = 0; k < n; k++) {
            if (k == j) continue;
            uint256 value = k == i ? x : xp[k];
            sum += value;
            c = c * d / (value * n);
        }
        c = c * d * PRECISION / (amp * n * n);
        uint256 b = sum + d * PRECISION / (amp * n);
        y = d;
        for (uint256 round = 0; round < 255; round++) {
            uint256 last = y;
            y = (y * y + c) / (2 * y + b - d);
            if ((y > last ? y - last : last - y) <= 1) return y;
        }
        revert("no end");
    }
}

/// Speaks as the factories do: no event says the address of its pool, and the list grows by one with each.
contract StableFactory {
    address[] private pools;
    mapping(address => uint8[]) private types;

    event PlainPoolDeployed(address[] coins, uint256 A, uint256 fee, address deployer);
    event PlainPoolDeployed(address[4] coins, uint256 A, uint256 fee, address deployer);
    event MetaPoolDeployed(address coin, address base_pool, uint256 A, uint256 fee, address deployer);

    function pool_count() external view returns (uint256) {
        return pools.length;
    }

    function pool_list(uint256 k) external view returns (address) {
        return k < pools.length ? pools[k] : address(0);
    }

    function get_pool_asset_types(address pool) external view returns (uint8[] memory) {
        return types[pool];
    }

    function deploy_plain_pool(address[] calldata coins, uint256 a, uint256 fee, uint256 offpeg, uint8[] calldata kinds)
        external
    {
        bool rebasing;
        for (uint256 k = 0; k < kinds.length; k++) rebasing = rebasing || kinds[k] == 2;
        _note(new StablePool(coins, a, fee, offpeg, true, rebasing), kinds);
        emit PlainPoolDeployed(coins, a, fee, msg.sender);
    }

    function deploy_old_pool(address[] calldata coins, uint256 a, uint256 fee, bool rebasing) external {
        address[4] memory four;
        for (uint256 k = 0; k < coins.length; k++) four[k] = coins[k];
        _note(new StablePool(coins, a, fee, 0, false, rebasing), new uint8[](0));
        emit PlainPoolDeployed(four, a, fee, msg.sender);
    }

    function deploy_metapool(address coin, address base, uint256 a, uint256 fee, uint256 offpeg) external {
        address[] memory coins = new address[](2);
        (coins[0], coins[1]) = (coin, base);
        _note(new StablePool(coins, a, fee, offpeg, true, false), new uint8[](2));
        emit MetaPoolDeployed(coin, base, a, fee, msg.sender);
    }

    function _note(StablePool pool, uint8[] memory kinds) private {
        pools.push(address(pool));
        types[address(pool)] = kinds;
    }
}
